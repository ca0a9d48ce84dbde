"""Computes how long a step of split training takes all devices.

With a_n, s_n, m_n and b_n as in cuts.py, the server either waits for all
activations before it computes (`barrier`), or serves them as they come, one
device at a time (`queue`):

    barrier  max_n a_n + sum_n s_n + max_n m_n + max_n b_n
    queue    with a sorted and C_k = s_1 + .. + s_k:
             done_k = C_k + max_{j <= k} (a_j - C_{j-1}),  max_k (done_k + b_k)

The latter's next step begins when all devices have ended this one. Formulas:
first come, first served on one server (textbook); the rest is **ours**.
"""

import jax
import jax.numpy as jnp

from relief_jax.budgets.cuts import Prices
from relief_jax.types import Array


def barrier(own: Prices, active: Array) -> Array:
  """Computes the time of a step whose server waits for all, [] seconds.

  Args:
    own: [K] of every field.
    active: [K] bool, devices that take part.
  """
  ahead, server, middle, behind = (
    jnp.where(active, v, 0.0)
    for v in (own.ahead, own.server, own.middle, own.behind)
  )
  return ahead.max() + server.sum() + middle.max() + behind.max()


def queue(own: Prices, active: Array) -> Array:
  """Computes the time of a step whose server takes them as they come, [].

  Where a device has last layers, it meets the server once more without a queue.

  Args: as `barrier`.
  """
  order = jnp.argsort(jnp.where(active, own.ahead, jnp.inf))
  ahead, server, behind = (
    jnp.where(active, v, 0.0)[order]
    for v in (own.ahead, own.server, own.behind + own.middle)
  )
  busy = jnp.cumsum(server)
  done = busy + jax.lax.cummax(ahead - (busy - server))
  return jnp.where(active[order], done + behind, 0.0).max()


ORDERS = {'barrier': barrier, 'queue': queue}
