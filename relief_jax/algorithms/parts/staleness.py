"""Weighs updates by their staleness, for servers that act on arrivals.

    constant     w(s) = 1
    polynomial   w(s) = (1 + s)^-a
    hinge        w(s) = 1 for s <= b, else 1 / (1 + a (s - b))

of Asynchronous Federated Optimization (https://arxiv.org/abs/1903.03934); s
are the server's steps between a device's start and its arrival, 0 for a device
whose model is still the server's.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from relief_jax.clients.device import Device, Received, Update
from relief_jax.clients.work import local_sgd
from relief_jax.keys import LARGE, MANY, name, option, real, whole
from relief_jax.task import Task
from relief_jax.types import Array

KINDS = ('constant', 'polynomial', 'hinge')
# Updates in FedBuff's buffer, as published.
PUBLISHED = 10


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of staleness."""

  staleness: str = option(
    name('polynomial', KINDS, 'how an update loses weight with its age')
  )
  power: float = option(real(0.5, 0, LARGE, 'staleness=polynomial: a'))
  slope: float = option(real(10.0, 0, LARGE, 'staleness=hinge: a'))
  grace: int = option(
    whole(6, 0, MANY, 'staleness=hinge: b, age up to which none is lost')
  )
  max_staleness: int = option(
    whole(
      0, 0, MANY, 'an older update is lost, with all that it took; 0: none is'
    )
  )


@dataclasses.dataclass(frozen=True)
class Buffered(Options):
  """Holds the options of a buffer beside those of staleness."""

  buffer: int = option(
    whole(
      0,
      0,
      MANY,
      f'K, updates in a step of the server; 0: the published {PUBLISHED}, or '
      'all at work (clients_per_round) where these are fewer',
    )
  )


def weight(options: Options) -> Callable[[Array], Array]:
  """Builds w, [K] staleness -> [K] factors.

  >>> ages = jnp.array([0.0, 3.0, 8.0])
  >>> [round(w, 2) for w in weight(Options())(ages).tolist()]
  [1.0, 0.5, 0.33]
  >>> hinge = weight(Options('hinge', slope=1.0))
  >>> [round(w, 2) for w in hinge(ages).tolist()]
  [1.0, 1.0, 0.33]

  Args:
    options: of staleness.
  """

  def w(age: Array) -> Array:
    if options.staleness == 'polynomial':
      return (1 + age) ** -options.power
    if options.staleness == 'hinge':
      return 1 / (1 + options.slope * jnp.maximum(age - options.grace, 0.0))
    return jnp.ones_like(age)

  return w


def size(buffer: int, at_work: int) -> int:
  """Settles the size of a buffer that an option leaves open.

  >>> size(0, 48), size(0, 6), size(3, 48)
  (10, 6, 3)

  Args:
    buffer: the option, 0 where it is open.
    at_work: devices at a time.
  """
  return buffer or min(PUBLISHED, at_work)


def pulled(task: Task, rho: float) -> Callable[[Received, Device], Update]:
  """Builds local SGD with rho / 2 |theta - theta_start|^2 in the loss.

  Args:
    task: the model.
    rho: 0 for none.
  """

  def pull(params, received, device):
    del device
    gap = jax.tree.map(jnp.subtract, params, received)
    return rho / 2 * optax.tree.norm(gap, squared=True)

  return local_sgd(task, penalty=pull if rho else None)
