"""FedSVD: b trains, then an SVD turns both factors (NeurIPS 2025).

As in FFA-LoRA `a` is the same on all devices and rests, so that the mean of b
is exact. After every round the server turns the factors: of a b = U S V^T it
keeps a = U, with orthonormal columns, and b = S V^T; the product stays and `a`
follows what was learnt. *Bytes*: r o up, r (i + o) down. Grade: secondary: a
third party's code states the rule (https://github.com/boyi-liu/FedLLM-Factory);
expect orderings, not numbers. Departure: that code takes rows of V where V^T is
meant, which destroys the product. Factors of sensors that nobody trained in a
round turn with the others (**ours**).
"""

from relief_jax.aggregation import lora
from relief_jax.algorithms.ffa_lora import second
from relief_jax.algorithms.parts.adapters import (
  Family,
  Kind,
  Merging,
  Options,
)
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Task


def turn(family: Family):
  """Builds the merge: orthonormal columns of `a`, the same product."""

  def merge(now: Merging):
    return lora.turned(family.ranks, now.params, now.sums), {}

  return merge


@Facts(options=Options, adapters=True)
def fedsvd(task: Task, setting: Setting) -> Method:
  """Builds FedSVD."""
  kind = Kind(halves=second, merge=turn)
  return Family(task, setting, 'fedsvd', kind).method()
