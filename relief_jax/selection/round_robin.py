"""Lets devices take part in turn (**ours**).

    the K of those present with the fewest rounds so far, then least ids

With all devices always present it is a queue in the order of their ids. Who was
away makes up for it when it is back. Nothing is told and nothing is drawn.
"""

import jax.numpy as jnp

from relief_jax.selection import picking
from relief_jax.selection.record import Picked, View


def round_robin(view: View, size: int) -> Picked:
  """Picks the devices with the fewest rounds so far.

  Args:
    view: of the round.
    size: K.
  """
  turns = view.seen.picks.astype(jnp.float32)  # exact below 2**24
  score = jnp.where(view.here, -turns, -jnp.inf)
  marked = picking.largest(score, view.id, jnp.int32(size), size)
  return picking.picked(marked, view.here, size)
