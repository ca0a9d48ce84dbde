"""Joins what a sensor read before to a batch of windows. **Ours.**"""

from collections.abc import Callable

import jax.numpy as jnp

from relief_jax.types import Array, Bank


def read(
  bank: Bank,
  row: Array,
  past: int,
  window: Callable[[Array], Array],
  lost: Callable[[Array], Array] | None = None,
) -> Array:
  """Reads windows behind those before them, [B, (past + 1) * time, ...].

  Where a recording has fewer, its first one is repeated; in the place of one
  that was lost stands the one after it.

  Args:
    bank: says which window is before which; where it does not, and with
      `past` 0, windows are read alone, [B, time, ...].
    row: [B] int32, of the bank.
    past: number of windows before.
    window: rows [B] -> what the sensor read, [B, time, ...].
    lost: rows [B] -> [B] bool, windows that it did not deliver.
  """
  if not past or bank.before is None:
    return window(row)
  rows, at = [row], row
  for _ in range(past):
    at = bank.before[at]
    there = at if lost is None else jnp.where(lost(at), rows[0], at)
    rows.insert(0, there)
  return jnp.concatenate([window(r) for r in rows], 1)
