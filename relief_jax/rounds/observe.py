"""Records observations of a round beside its costs, in `RoundInfo.extra`."""

from collections.abc import Callable
from typing import NamedTuple

from relief_jax.clients.device import Device, Update
from relief_jax.types import Array, PyTree


class Observer(NamedTuple):
  """Observes updates as they arrive; it changes nothing.

  Attributes:
    client: (Device, Update) -> pytree, kept apart by client.
    server: [K, ...] of it -> {name: array} of `RoundInfo.extra`.
  """

  client: Callable[[Device, Update], PyTree]
  server: Callable[[PyTree], dict[str, Array]]
