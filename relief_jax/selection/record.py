"""Records of a selection rule: what a server remembers, sees and picks."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from relief_jax.settings import HParams
from relief_jax.types import Array


class Seen(NamedTuple):
  """Holds what a server remembers of its devices, [N] of every field.

  Attributes:
    picks: int32, rounds that it was picked for.
    last: int32, the last one of them; -1 before the first.
    utility: float32, windows times mean training loss of that round; 0 where
      no update came of it.
    seconds: float32 of that round.
    joules: float32 of that round.
    spent: float32 joules of all its rounds.
  """

  picks: Array
  last: Array
  utility: Array
  seconds: Array
  joules: Array
  spent: Array


def key(name: str) -> str:
  """Gives the hyperparameter that holds a key of `config.selection`."""
  return f'selection.{name}'


class View(NamedTuple):
  """Holds what a rule looks at.

  Attributes:
    id: [N] int32, which breaks ties.
    here: [N] bool, has windows and is present.
    windows: [N] float32, different ones that it trains on in a round, at most.
    seconds: [N] float32 of a round: of its last one, before that expected.
    joules: [N] float32, likewise.
    noise: [N] float32, Gumbel draws of this round, tied to the id.
    round_index: [] int32.
    seen: of the rounds before.
    hparams: traced hyperparameters.
  """

  id: Array
  here: Array
  windows: Array
  seconds: Array
  joules: Array
  noise: Array
  round_index: Array
  seen: Seen
  hparams: HParams

  def value(self, name: str) -> Array:
    """Gives the value of a key of `config.selection`, []."""
    return self.hparams[key(name)]


class Picked(NamedTuple):
  """Holds the participants of a round.

  Attributes:
    place: [K] int32, in increasing order.
    asked: [K] bool; the others only fill the shape and sit out.
  """

  place: Array
  asked: Array


Rule = Callable[[View, int], Picked]


def nobody(clients: int) -> Seen:
  """Gives the record before the first round.

  Args:
    clients: N.
  """
  count, numbers = jnp.zeros(clients, jnp.int32), jnp.zeros(clients)
  return Seen(count, count - 1, numbers, numbers, numbers, numbers)


def after(
  seen: Seen, picked: Picked, now: Array, utility: Array, costs: Array
) -> Seen:
  """Adds a round to the record.

  Args:
    seen: before it.
    picked: for it.
    now: [] int32, its number.
    utility: [K] float32, windows times mean training loss; 0 without update.
    costs: [K, 2] float32, seconds and joules.
  """
  place, asked = picked

  def put(every, rows):
    return every.at[place].set(jnp.where(asked, rows, every[place]))

  return Seen(
    picks=seen.picks.at[place].add(asked.astype(jnp.int32)),
    last=put(seen.last, now),
    utility=put(seen.utility, utility),
    seconds=put(seen.seconds, costs[:, 0]),
    joules=put(seen.joules, costs[:, 1]),
    spent=seen.spent.at[place].add(jnp.where(asked, costs[:, 1], 0.0)),
  )
