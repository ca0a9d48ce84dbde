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
its energy is a figure of its own, as the project counts devices. Copies on the
server and the mean over them cost nothing. Activations and gradients travel in
float32, of the modalities that a device has, and do not pass the links' codes,
which carry the device's part of the model, once a round up and down.

Grade: published; the choice of cuts, latency and memory are **ours**, after the
formulas of split learning's latency in https://arxiv.org/abs/2403.13101.
*Memory*: parameters, gradients and optimiser of the device's part, and the
activations that its backward pass reads.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import split_bill
from relief_jax.algorithms.psl import together
from relief_jax.budgets import cuts
from relief_jax.keys import name, option, whole
from relief_jax.rounds import activation_codes, split_steps
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task


@dataclasses.dataclass(frozen=True)
class Options(split_bill.Options, activation_codes.Options):
  """Holds the options of SplitFed V1."""

  rule: str = option(name('fastest', cuts.RULES, 'where a device splits'))
  layers: int = option(
    whole(
      1,
      -2,
      1000,
      'on every device if rule=fixed; -1: the whole model, -2: all in front of '
      'the last point',
    )
  )


@Facts(options=Options, splits=True)
def splitfed(task: Task, setting: Setting) -> Method:
  """Builds SplitFed V1.

  Args:
    task: the model, with split points.
    setting: the round, with `Options`.

  Raises:
    InputError: as `split_bill.bill`.
  """
  found = split_bill.bill(task, setting, 'splitfed')

  if found.codes:
    # Copies of the server's part are in lockstep as if the devices held them.
    all_blocks = np.ones_like(found.device)
    every = found._replace(device=all_blocks, server=~all_blocks)
    method = together(task, setting, every, split_steps.pooled)

    def held(server, round: Round) -> Plan:
      planned = method.plan(server, round)
      return planned._replace(held=jnp.ones_like(planned.trained))

    return method._replace(plan=held)

  def plan(state, round: Round) -> Plan:
    del state
    # Copies of the server's part train as on the device: nothing is held apart.
    return found.everybody(setting, round)._replace(held=None)

  return fedavg.fedavg(task, setting)._replace(plan=plan, check=found.check)
