"""FLoRA: stacked adapters, merged without noise (arXiv 2409.05976).

A device trains adapters of its own rank. The server stacks all of them, which
is the sum of their products, adds it to the base and starts again: a new `a`,
drawn from the round's key and the same for all, and b = 0. The base is then
state of the server: devices are sent what was merged, of every layer the
stacked factors, sum r_n (i + o) numbers, or the dense i o, whichever is less
(`merge_dense` tells). Who missed merges is sent all of them (**ours**). *Up*:
r_n (i + o).

Restarting costs: at the first step of a round `a` has no gradient, and the
optimiser starts anew. With many short rounds expect it behind `ffa_lora` and
`fedex`. Grade: published code (https://github.com/ATP-1010/FederatedLLM;
https://arxiv.org/abs/2409.05976). Departures: the mean, not the sum, of
devices with equal weights; the same alpha / r in training and in the merge;
clients do not draw their own factors. *Budget* (**ours**): the largest rank of
R, R / 2, ... whose FLOPs and memory fit; who affords none sits out.
"""

from relief_jax.aggregation import lora
from relief_jax.algorithms.parts.adapters import (
  Family,
  Kind,
  Merging,
  RankOptions,
)
from relief_jax.budgets.ranks import Halves
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Task


def restart(family: Family):
  """Builds the merge: all products into the base, factors drawn anew."""

  def merge(now: Merging):
    fresh = family.fresh(now.key)
    params = lora.restarted(family.ranks, now.params, now.sums, fresh)
    return params, now.goal

  return merge


@Facts(options=RankOptions, adapters=True, budgeted=True, splits=True)
def flora(task: Task, setting: Setting) -> Method:
  """Builds FLoRA."""
  kind = Kind(
    down=lambda index: Halves(False, False),
    budgeted=True,
    padded=False,
    merge=restart,
    merges=True,
  )
  return Family(task, setting, 'flora', kind).method()
