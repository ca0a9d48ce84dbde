"""Combines the processes of the online world into the conditions of a round."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.clients import sensor_faults
from relief_jax.online import missing, presence, radio, streams
from relief_jax.types import Array, Fleet, Population, PyTree


class Online(NamedTuple):
  """Holds the processes of a world; None for what is off.

  Attributes:
    words: [2] uint32, the key of all their draws.
    stream: of windows.
    missing: of sensors, at random.
    outage: of sensors, planned.
    presence: of devices.
    pace: of processors and links.
  """

  words: Array
  stream: streams.Stream | None
  missing: PyTree
  outage: missing.Outage | None
  presence: PyTree
  pace: radio.Pace | None


class RoundConditions(NamedTuple):
  """Holds those conditions of a round that `types.Fleet` has no field for.

  Attributes:
    installed: [K, M] bool, the installed sensors, delivering or not.
    fresh: [K, A] int32, rows that arrived in this round, or None.
    arrived: [K] int32, how many of them are real, or None.
    loss: [K] probability that a packet is lost, or None.
    luck: [K, 2] standard normal draws for packets up and down, or None.
  """

  installed: Array
  fresh: Array | None = None
  arrived: Array | None = None
  loss: Array | None = None
  luck: Array | None = None


def only(fleet: Fleet, chosen: Array) -> Fleet:
  """Lets the others of a round sit out, as if they were away.

  Args:
    fleet: [K] of the round.
    chosen: [K] bool.
  """
  found = fleet.conditions
  if found is not None and found.arrived is not None:
    found = found._replace(arrived=found.arrived * chosen)
  return dataclasses.replace(
    fleet, samples=fleet.samples * chosen, conditions=found
  )


def take(population: Population, index: Array, round_index: Array):
  """Gathers the participants of a round and their windows.

  Args:
    population: all clients.
    index: [K] places of the participants.
    round_index: [] int32.

  Returns:
    Fleet [K], and rows of the bank [K, W]; with a stream [K, N_b]. The first
    `samples` of each row are real.
  """
  fleet = jax.tree.map(lambda v: v[index], population.fleet)
  own, world = population.rows[index], population.online
  if fleet.shift is not None:
    fleet = fleet.replace(
      shift=sensor_faults.at_round(fleet.shift, round_index)
    )
  if world is None:
    return fleet, own
  at = (world.words, fleet.id, index, round_index)
  found = RoundConditions(installed=fleet.owned)
  if world.stream is not None:
    view = streams.view(
      world.stream, *at, own, fleet.samples, population.bank.y
    )
    own = view.own
    fleet = fleet.replace(samples=view.labelled)
    found = found._replace(fresh=view.fresh, arrived=view.arrived)
  if world.missing is not None or world.outage is not None:
    lost = missing.lost_sensors(
      world.missing, world.outage, *at, fleet.owned.shape[1]
    )
    fleet = fleet.replace(owned=fleet.owned & ~lost)
  there = fleet.owned.any(-1)  # without a single sensor there is no window
  if world.presence is not None:
    there &= presence.here(world.presence, *at)
  fleet = fleet.replace(samples=fleet.samples * there)
  if found.arrived is not None:
    found = found._replace(arrived=found.arrived * there)
  if world.pace is not None:
    fleet = radio.paced(world.pace, world.words, fleet, index, round_index)
    if world.pace.loss is not None:
      found = found._replace(
        loss=jnp.broadcast_to(world.pace.loss, fleet.id.shape),
        luck=radio.luck(world.words, fleet.id, round_index),
      )
  return fleet.replace(conditions=found), own
