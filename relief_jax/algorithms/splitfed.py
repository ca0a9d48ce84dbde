"""SplitFed V1 (Thapa et al., 2022, https://arxiv.org/abs/2004.12088).

A device holds the first layers of the encoders, the server the rest, a copy for
every device. In each local step activations and labels go up and the gradients
at the cut come down; at the end of a round both parts are averaged. That *is*
FedAvg, whatever the cut: the same parameters to the bit, at another price. So
only the bill is computed here: time, bytes, memory and energy of every device
(budgets/cuts.py). With all layers on every device the bill is FedAvg's too.

`rule` says where a device splits: everybody behind `layers` layers, or each by
what its memory holds or by what is fastest for it. The server has a speed of
its own, waits for all activations or serves them as they come (`server_order`);
its energy is not counted, as the project counts devices. Copies on the server
and the mean over them cost nothing. Activations and gradients travel in
float32, of the modalities that a device has, and do not pass the links' codes,
which carry the device's part of the model, once a round up and down.

Grade: published; the choice of cuts, latency and memory are **ours**, after the
formulas of split learning's latency in https://arxiv.org/abs/2403.13101.
*Memory*: parameters, gradients and optimiser of the device's part, and the
activations that its backward pass reads.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import costs
from relief_jax.algorithms import fedavg
from relief_jax.budgets import cuts
from relief_jax.errors import InputError
from relief_jax.keys import name, option, real, whole
from relief_jax.rounds import frame
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round
from relief_jax.settings import ANY, Setting
from relief_jax.task import CostOverride, Plan, Task
from relief_jax.types import Array, Fleet


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of split training."""

  rule: str = option(name('fastest', cuts.RULES, 'where a device splits'))
  layers: int = option(
    whole(1, -1, 1000, 'on every device if rule=fixed; -1: the whole model')
  )
  server_order: str = option(
    name('barrier', cuts.ORDERS, 'the server waits for all, or takes each')
  )
  server_gflops: float = option(
    real(1000.0, 0.001, 1e9, 'speed of the server', unit='GFLOP/s')
  )


@Facts(options=Options, splits=True)
def splitfed(task: Task, setting: Setting) -> Method:
  """Builds SplitFed V1.

  Args:
    task: the model, with split points.
    setting: the round, with `Options`.

  Raises:
    InputError: a model without split points, or without the one asked for; a
      server that does not wait.
  """
  if setting.late:
    raise InputError(
      'config.online.pace.wait for splitfed',
      '0: in every step all devices wait for the server',
      'set --config.online.pace.wait=0',
    )
  options, points = setting.options, cuts.required(task, 'splitfed')
  step = setting.memory_step
  server = cuts.Split(step.batch, step.slots, options.server_gflops * 1e9)
  work = costs.stack(points.work)
  held = jnp.asarray(np.array(points.held))
  order = {'barrier': cuts.barrier, 'queue': cuts.queue}[options.server_order]

  def chosen(round: Round, whole: Plan) -> tuple[cuts.Prices, Array, Array]:
    fleet = round.fleet
    found = cuts.prices(task, points, server, fleet, whole.run, whole.trained)
    at, fits = cuts.choose(
      options.rule, options.layers, points, found, fleet.memory, round.key
    )
    return found, at, fits

  def plan(state, round: Round) -> Plan:
    del state
    whole = fedavg.everybody(setting, round)
    found, at, fits = chosen(round, whole)
    own, inside = cuts.at(found, at), fits[:, None]
    steps = setting.local_steps(round.fleet).astype(jnp.float32)
    busy = own.ahead + own.behind
    # Who holds the whole model meets the server at the end of a round only.
    split = round.active & fits & (at < len(points.layers) - 1)
    # Devices of fewer steps are idle in the last ones.
    together = jnp.where(split, steps, 0.0).max() * order(own, split)
    # What a device is sent of the model is what it trains and sends.
    mine = held[at] & whole.trained & inside
    return whole._replace(
      cost=CostOverride(
        work=jax.tree.map(lambda v: v[at], work),
        received=mine,
        sent=mine,
        upload=steps * own.up,
        download=steps * own.down,
        waiting=jnp.where(
          split, jnp.maximum(together - steps * busy, 0.0), 0.0
        ),
        memory=own.memory,
      ),
    )

  def check(fleet: Fleet, deadline: float) -> None:
    del deadline
    first = frame.last(task, setting, ANY, fleet, jnp.int32(0))
    found, _, fits = chosen(first, fedavg.everybody(setting, first))
    cuts.check(points, found, fleet, np.asarray(fits), setting.sit_out)

  return fedavg.fedavg(task, setting)._replace(plan=plan, check=check)
