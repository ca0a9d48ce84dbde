"""Modality quantity and quality rebalancing, in the style of QQR.

https://arxiv.org/abs/2508.11159. Sensors deliver more or less often (quantity)
and more or less well (quality). The paper's update rule is not public: this is
a reconstruction from its abstract, **ours** in every line, and no figure from
here is the paper's. On top of a cohort mean, each part a switch:

- dispersion: disp[n, m], the mean squared distance of a feature number of
  sensor m on device n to its class's prototype, a running mean by `ema`;
- `confidence`: conf = exp(-beta relu(disp / median over the cohort - 1)) from
  round `start` on weighs the updates of m's groups (quality-1);
- `weighted`: prototypes are means weighted by conf instead of 0 and 1;
- `align`: la sum_m conf ||z_m - prototype||^2 is added to the loss (quality-2);
- `mix`: z_m becomes conf z_m + (1 - conf) prototype of the label (quality-3),
  which leaks the label, hence off;
- `substitute`: a missing feature becomes the prototype of the label, as with
  PMM (quantity), which leaks it too, hence off.

With all of them off it is a cohort mean. At test a missing feature is zero.
Grade: reconstruction.

*Budget*: none. *Bytes*: prototypes down, sums and a dispersion per sensor up.
*FLOPs*: a forward pass over the device's windows.
"""

import dataclasses

import jax
import jax.numpy as jnp

from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import prototypes, sensor_confidence
from relief_jax.clients.device import Device, Received
from relief_jax.clients.training import criterion
from relief_jax.clients.work import local_sgd
from relief_jax.keys import LARGE, MANY, option, real, switch, whole
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round, Traits
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of the reconstruction."""

  beta: float = option(
    real(2.0, 0, LARGE, 'confidence falls so fast with dispersion')
  )
  start: int = option(
    whole(5, 0, MANY, 'before sensors are told apart', 'rounds')
  )
  confidence: bool = option(switch(True, 'weighs updates'))
  weighted: bool = option(switch(True, 'prototypes are weighted by it'))
  align: float = option(
    real(0.05, 0, LARGE, 'of the distance to prototypes in the loss; 0: off')
  )
  mix: bool = option(
    switch(False, 'doubtful features towards the prototype; leaks the label')
  )
  substitute: bool = option(
    switch(False, 'prototypes for what is missing; leaks the label')
  )


@Facts(options=Options, skips=True, classes=True)
def qqr_style(task: Task, setting: Setting) -> Method:
  """Builds the reconstruction.

  Args:
    task: the model.
    setting: the round, with `Options`.
  """
  options = setting.options
  changes = options.align or options.mix or options.substitute
  uses = options.confidence or changes

  def plan(server, round: Round) -> Plan:
    whole = fedavg.everybody(setting, round)
    owners = round.access & round.active[:, None]
    counted = owners.astype(jnp.float32)
    if not uses:
      return whole._replace(counted=counted)
    trust = sensor_confidence.confidence(
      server.method_state,
      round,
      round.fleet.owned,
      options.beta,
      options.start,
    )
    if options.confidence:
      counted *= sensor_confidence.weights(task, trust)
    return whole._replace(
      counted=counted,
      client_args=trust,
      cost=sensor_confidence.extra_cost(
        task, round.fleet, whole.run, options.substitute
      ),
    )

  def objective(received: Received, device: Device):
    known: prototypes.Prototypes = received.extra
    trust = device.args

    def mend(y, features, run):
      if options.substitute:
        features, run = prototypes.substitute(known, y, features, run)
      if options.mix:
        for i, m in enumerate(task.modalities):
          if m not in features:
            continue
          there = (known.updates[m][y] > 0)[:, None]
          share = jnp.where(there & run[i], trust[i], 1.0)
          slot = jax.lax.stop_gradient(known.mean[m][y])
          features = {**features, m: share * features[m] + (1 - share) * slot}
      return features, run

    def loss(params, step):
      y = device.classes(step)
      mends = options.substitute or options.mix
      output = device.forward(
        params,
        step,
        mend=(lambda z, run: mend(y, z, run)) if mends else None,
      )
      value = criterion(task)(output.logits, y, step.weight)
      if not options.align:
        return value
      far = jnp.float32(0.0)
      for i, m in enumerate(task.modalities):
        if m not in output.features:
          continue
        slot = jax.lax.stop_gradient(known.mean[m][y])
        apart = jnp.square(output.features[m] - slot).sum(-1)
        counts = step.weight * (known.updates[m][y] > 0) * step.run[i]
        far += trust[i] * jnp.where(counts > 0, counts * apart, 0.0).sum()
      return value + options.align * far / jnp.maximum(step.weight.sum(), 1e-9)

    return loss

  base = fedavg.fedavg(task, setting)._replace(plan=plan)
  if not uses:
    return base
  train = local_sgd(task, objective=objective if changes else None)

  def client(received: Received, device: Device):
    trust = device.args
    if not options.weighted:
      trust = device.fleet.owned.astype(jnp.float32)
    sums, far = sensor_confidence.client_statistics(
      task, received, device, trust
    )
    return train(received, device)._replace(sums=sums, rows=far)

  def server(state, mean, round: Round):
    confidence = sensor_confidence.remember(state.method_state, mean, round)
    return base.server(state._replace(method_state=confidence), mean, round)

  return base._replace(
    client=client,
    server=server,
    init=lambda params: sensor_confidence.init(task, setting.clients),
    send=lambda server: Received(server.params, server.method_state.prototypes),
    traits=Traits(sums=True),
  )
