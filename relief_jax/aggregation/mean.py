"""Means and divergences from sums over clients."""

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.rounds.method import Merge
from relief_jax.types import Array, PyTree, Task


def merge_sums(
  task: Task,
  weight: Array,
  trained: Array,
  sums,
  held: PyTree | None = None,
  dilute: bool = False,
) -> Merge:
  """Means and divergences from sums: E|D|^2 - |ED|^2, never negative.

  Devices that count without training contribute zeros to `total`, so the
  trainers' own mean is the same total over their own weight.

  A difference of sums in float32 loses what the mean has in common. With
  10^5 clients, one added at a time, the spread is off by less than 5e-5 (1 + R)
  of itself, R = mean_sq / spread (numerics_test.py measures 1e-5 (1 + R); in
  blocks it is a hundredth of that). Updates of unlike devices have R of about
  1; beyond 10^3 read the spread as a bound only.

  Args:
    task: the model.
    weight: [K, G] weights in the mean.
    trained: [K, G] bool.
    sums: total weighted update P, weighted squared norms [G], extra.
    held: P, summed weights of those who hold an element, where groups are not
      held whole; the mean is then over them.
    dilute: the mean is over all that count even so.
  """
  total, sq, extra = sums
  num = len(task.group_names)
  moved = weight * trained
  counted, trainers = weight.sum(0), moved.sum(0)
  total_sq = tree.group_sq_norms(task.groups, total, num)
  mean_sq = tree.divide(total_sq, jnp.square(trainers))
  everybody = held is None or dilute
  over = tree.spread(task.groups, counted) if everybody else held
  touched = (
    tree.spread(task.groups, trainers > 0)
    if held is None
    else jax.tree.map(lambda v: v > 0, held)
  )
  return Merge(
    mean=tree.divide(total, over),
    touched=touched,
    weight=trainers,
    trainers=(moved > 0).sum(0).astype(jnp.float32),
    spread=jnp.maximum(tree.divide(sq, trainers) - mean_sq, 0.0),
    mean_sq=mean_sq,
    extra=extra,
    active=(weight.max(-1) > 0).sum().astype(jnp.float32),
  )
