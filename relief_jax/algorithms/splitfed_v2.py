"""SplitFed V2 (Thapa et al., 2022, https://arxiv.org/abs/2004.12088).

One server model, moved after each device in turn:

    for n in an order drawn for the round:
      phi <- opt(phi, dL_n/dphi),   theta_n <- opt(theta_n, dL_n/dtheta_n)

in every local step; at the end of a round the devices' parts are averaged. The
devices' own passes are parallel, so that only the server is waited for. The
order is drawn of a key and does not follow the devices' speed: a faster fleet
learns the same. The server's part takes as many steps as devices times local
steps, at the devices' rate.

Grade: published. Splits, latency and memory are **ours** (budgets/cuts.py).
"""

import dataclasses

from relief_jax.algorithms.parts import split_bill
from relief_jax.algorithms.psl import together
from relief_jax.rounds import activation_codes, split_steps
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Task


@dataclasses.dataclass(frozen=True)
class Options(split_bill.Options, activation_codes.Options):
  """Holds the options of SplitFed V2."""


@Facts(options=Options, splits=True)
def splitfed_v2(task: Task, setting: Setting) -> Method:
  """Builds SplitFed V2.

  Args:
    task: the model, with split points.
    setting: the round, with `Options`.

  Raises:
    InputError: as `split_bill.bill`.
  """
  found = split_bill.bill(task, setting, 'splitfed_v2')
  return together(task, setting, found, split_steps.in_turn, in_turn=True)
