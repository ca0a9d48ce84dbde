"""Builds the record of a model's FLOPs and sizes (`task.Work`)."""

from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import numpy as np

from relief_jax.task import Work
from relief_jax.types import Array


def paths(passes: Collection[frozenset[int]], num_groups: int) -> Array:
  """Marks the groups whose training needs each gradient pass, [Q, G] bool."""
  found = np.zeros((len(passes), num_groups), bool)
  for row, needed in zip(found, passes, strict=True):
    row[list(needed)] = True
  return jnp.asarray(found)


class WorkBuilder:
  """Collects FLOPs and gradient paths while a model describes itself."""

  def __init__(self, num_modalities: int, num_groups: int):
    # Numbers, or traced where the width is (`task.Widths.work`).
    self.shared: Any = 0.0
    self.fwd: list[Any] = [0.0] * num_modalities
    self.wgrad: list[Any] = [0.0] * num_groups
    self.passes: dict[frozenset[int], Any] = {}

  def gradient_path(self, flops: Any, groups) -> None:
    """Adds a gradient pass through a layer, needed to train `groups`."""
    needed = frozenset(groups)
    if needed:
      self.passes[needed] = self.passes.get(needed, 0.0) + flops

  def build(self, size: Array) -> Work:
    """Builds the finished record; `size` is [G]."""
    return Work(
      shared=jnp.asarray(self.shared, jnp.float32),
      fwd=jnp.asarray(self.fwd, jnp.float32),
      wgrad=jnp.asarray(self.wgrad, jnp.float32),
      agrad=jnp.asarray(list(self.passes.values()), jnp.float32),
      path=paths(self.passes, len(self.wgrad)),
      size=size,
    )
