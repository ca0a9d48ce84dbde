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

*Budget*: none. *Bytes*: prototypes down, sums and a dispersion per sensor up.
*FLOPs*: a forward pass over the device's windows.
"""

import jax
import jax.numpy as jnp

from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import prototypes, sensor_confidence
from relief_jax.algorithms.parts.sensor_confidence import Quality
from relief_jax.clients.training import cross_entropy
from relief_jax.rounds import parallel
from relief_jax.rounds.method import Context, Learner, Merge, Recipe
from relief_jax.settings import Setting
from relief_jax.types import Algorithm, Plan, Task


def qqr_style(task: Task, setting: Setting) -> Algorithm:
  """The reconstruction; grade: reconstruction.

  Args:
    task: the model.
    setting: the round; `options` holds `beta`, `start`, `confidence`,
      `weighted`, `align`, `mix`, `substitute` and `clients` (N).
  """
  options = setting.options
  uses = any(options[k] for k in ('confidence', 'align', 'mix', 'substitute'))

  def plan(memory: Quality, context: Context) -> Plan:
    whole = fedavg.plan(setting, context)
    owners = context.access & context.active[:, None]
    counted = owners.astype(jnp.float32)
    if not uses:
      return whole._replace(counted=counted)
    trust = sensor_confidence.confidence(
      memory, context, context.fleet.owned, options['beta'], options['start']
    )
    if options['confidence']:
      counted *= sensor_confidence.weights(task, trust)
    return whole._replace(
      counted=counted,
      piece=trust,
      charge=sensor_confidence.charge(
        task, context.fleet, whole.run, options['substitute']
      ),
    )

  def objective(learner: Learner):
    known: prototypes.Prototypes = learner.sent
    trust = learner.client.piece

    def mend(y, features, run):
      if options['substitute']:
        features, run = prototypes.substitute(known, y, features, run)
      if options['mix']:
        for i, m in enumerate(task.modalities):
          if m not in features:
            continue
          there = (known.updates[m][y] > 0)[:, None]
          share = jnp.where(there & run[i], trust[i], 1.0)
          slot = jax.lax.stop_gradient(known.mean[m][y])
          features = {**features, m: share * features[m] + (1 - share) * slot}
      return features, run

    def loss(params, step):
      y = learner.y(step)
      changes = options['substitute'] or options['mix']
      output = learner.forward(
        params,
        step,
        mend=(lambda z, run: mend(y, z, run)) if changes else None,
      )
      value = cross_entropy(output.logits, y, step.weight)
      if not options['align']:
        return value
      far = jnp.float32(0.0)
      for i, m in enumerate(task.modalities):
        if m not in output.features:
          continue
        slot = jax.lax.stop_gradient(known.mean[m][y])
        apart = jnp.square(output.features[m] - slot).sum(-1)
        counts = step.weight * (known.updates[m][y] > 0) * step.run[i]
        far += trust[i] * jnp.where(counts > 0, counts * apart, 0.0).sum()
      return value + options['align'] * far / jnp.maximum(
        step.weight.sum(), 1e-9
      )

    return loss

  def tell(params, learner: Learner):
    trust = learner.client.piece
    if not options['weighted']:
      trust = learner.client.fleet.owned.astype(jnp.float32)
    return sensor_confidence.tell(task, params, learner, trust)

  def remember(memory: Quality, merge: Merge, plan: Plan, context: Context):
    return sensor_confidence.remember(
      memory, merge, context, plan.trained.any(-1), setting.hparams['ema']
    )

  if not uses:
    return parallel.federated(task, setting, Recipe(plan=plan))
  recipe = Recipe(
    plan=plan,
    memory=lambda: sensor_confidence.init(task, options['clients']),
    send=lambda memory: memory.prototypes,
    tell=tell,
    remember=remember,
  )
  if options['align'] or options['mix'] or options['substitute']:
    recipe = recipe._replace(objective=objective)
  return parallel.federated(task, setting, recipe)
