"""Observers: what a round records beside its costs, in `RoundInfo.extra`."""

from collections.abc import Callable
from typing import NamedTuple

from relief_jax.clients.device import Device, Update
from relief_jax.types import Array, PyTree


class Observer(NamedTuple):
  """Looks at updates as they arrive; what it sees changes nothing.

  Attributes:
    client: (Device, Update) -> pytree, kept apart by client.
    server: [K, ...] of it -> {name: array} of `RoundInfo.extra`.
  """

  client: Callable[[Device, Update], PyTree]
  server: Callable[[PyTree], dict[str, Array]]
