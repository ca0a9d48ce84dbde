"""Varies processors and links from round to round. **Ours.**"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from relief_jax.online import bandwidth_file, keys
from relief_jax.online.bandwidth_file import Bandwidth
from relief_jax.types import Array, Fleet


class Pace(NamedTuple):
  """Describes how a round's speed and links differ from the data sheet.

  Attributes:
    slowdown: [] deviation of the log of a device's speed, or None.
    fading: [] deviation of the log of a link's bandwidth, or None.
    loss: [] probability that a packet is lost and sent again, or None.
    bandwidth: recorded, in place of the data sheet's; fading comes on top. Or
      None.
  """

  slowdown: Array | None
  fading: Array | None
  loss: Array | None
  bandwidth: Bandwidth | None = None


def paced(
  pace: Pace, words: Array, fleet: Fleet, place: Array, round_index: Array
) -> Fleet:
  """Gives the participants the speeds and bandwidths of a round.

  Budgets stay: the server plans with the data sheet.

  Args:
    pace: of the world.
    words: its key.
    fleet: [K] participants.
    place: [K] places in the population.
    round_index: [] int32.
  """
  if pace.bandwidth is not None:
    rates = bandwidth_file.at(pace.bandwidth, place, round_index)
    fleet = dataclasses.replace(
      fleet,
      uplink=rates.get('uplink', fleet.uplink),
      downlink=rates.get('downlink', fleet.downlink),
    )
  if pace.slowdown is not None:
    key = keys.at(keys.of(words, keys.PACE), round_index)
    slow = jnp.exp(pace.slowdown * keys.normal(key, fleet.id))
    fleet = dataclasses.replace(fleet, speed=fleet.speed / slow)
  if pace.fading is not None:
    key = keys.at(keys.of(words, keys.RADIO), round_index)
    up, down = jnp.exp(pace.fading * keys.normal(key, fleet.id, (2,))).T
    fleet = dataclasses.replace(
      fleet, uplink=fleet.uplink * up, downlink=fleet.downlink * down
    )
  return fleet


def luck(words: Array, ids: Array, round_index: Array) -> Array:
  """Draws [K, 2] standard normal, for packets lost on the way up and down."""
  key = keys.at(keys.of(words, keys.LUCK), round_index)
  return keys.normal(key, ids, (2,))
