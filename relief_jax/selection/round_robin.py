"""Lets devices take part in turn (**ours**).

    the K of those present whose last round is the longest ago, then least ids

Who was away when it was its turn comes first when it is back. With all devices
always present it is a queue in the order of their ids. Nothing is told and
nothing is drawn.
"""

import jax.numpy as jnp

from relief_jax.selection import picking
from relief_jax.selection.record import Picked, View


def round_robin(view: View, size: int) -> Picked:
  """Picks the devices whose last round is the longest ago.

  Args:
    view: of the round.
    size: K.
  """
  waited = -view.seen.last.astype(jnp.float32)  # exact below 2**24 rounds
  score = jnp.where(view.here, waited, -jnp.inf)
  marked = picking.largest(score, view.id, jnp.int32(size), size)
  return picking.picked(marked, view.here, size)
