"""FlexLoRA: the mean of products, cut by SVD (https://arxiv.org/abs/2402.11505).

A device trains adapters of its own rank r_n; the server forms the mean of the
products of all devices, takes its SVD and hands every device the r_n largest
singular values, a = U and b = S V^T. The server keeps R of them, so that with R
as large as the layer's rank nothing is lost; else `merge_error` records what
is. *Bytes*: r_n (i + o) both ways. Grade: published. One scale on both sides:
budgets/ranks.py (**ours**). Factors of sensors that nobody trained in a round
turn with the others (**ours**). *Budget* (**ours**): the largest rank of R,
R / 2, ... whose FLOPs and memory fit; who affords none sits out.
"""

from relief_jax.aggregation import lora
from relief_jax.algorithms.parts.adapters import (
  Family,
  Kind,
  Merging,
  RankOptions,
)
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Task


def truncate(family: Family):
  """Builds the merge: the largest singular values of the mean product."""

  def merge(now: Merging):
    params = lora.truncated(family.ranks, now.params, now.sums, now.goal)
    return params, {}

  return merge


@Facts(options=RankOptions, adapters=True, budgeted=True, splits=True)
def flexlora(task: Task, setting: Setting) -> Method:
  """Builds FlexLoRA."""
  kind = Kind(budgeted=True, padded=False, merge=truncate)
  return Family(task, setting, 'flexlora', kind).method()
