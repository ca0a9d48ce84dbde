"""Describes fleets: the records that `fleets.py` turns into clients."""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from relief_jax.devices import Device


class Tier(NamedTuple):
  """Describes one kind of device in a fleet.

  Attributes:
    name: for reports.
    share: percent of the clients; in a fleet of one size only, their number.
    part: the tier owns the first ceil(M * part) modalities.
    device: name of its profile in `DEVICES`, or the profile itself.
    speed: FLOP/s in place of the profile's, 0 for the profile's own.
    sensors: names of the modalities it owns, in place of `part`.
    source: of its share in a population, to be cited.
  """

  name: str
  share: int | Fraction
  part: Fraction
  device: str | Device
  speed: float = 0.0
  sensors: tuple[str, ...] = ()
  source: str = ''


class Tiers(NamedTuple):
  """Describes a fleet.

  Attributes:
    tiers: from fewest to most sensors; shares add up to 100.
    clients: the only size the fleet comes in, 0 for any.
  """

  tiers: tuple[Tier, ...]
  clients: int = 0


def counts(tiers: tuple[Tier, ...], clients: int) -> list[int]:
  """Counts the clients of every tier by the largest remainder.

  Ties go to the tier with more sensors, so that a small fleet keeps a rare
  cohort rather than one more of the common devices.

  >>> counts((Tier('a', 60, 1, ''), Tier('b', 40, 1, '')), 4)
  [2, 2]

  Args:
    tiers: of a fleet.
    clients: N.

  Returns:
    Clients of each tier; they add up to N.
  """
  total = sum(tier.share for tier in tiers)
  quotas = [tier.share * clients for tier in tiers]
  result = [int(quota // total) for quota in quotas]
  order = sorted(
    range(len(tiers)), key=lambda t: (quotas[t] % total, t), reverse=True
  )
  for t in order[: clients - sum(result)]:
    result[t] += 1
  return result


def owned_by(
  tiers: tuple[Tier, ...], modalities: int | Sequence[str]
) -> np.ndarray:
  """Marks the modalities that every tier owns.

  >>> owned_by((Tier('a', 100, Fraction(1, 4), ''),), 3)
  array([[ True, False, False]])

  Args:
    tiers: of a fleet.
    modalities: M, or the names where a tier lists its sensors.

  Returns:
    [tiers, M] bool.
  """
  names = () if isinstance(modalities, int) else tuple(modalities)
  size = modalities if isinstance(modalities, int) else len(modalities)
  owned = np.zeros((len(tiers), size), bool)
  for row, tier in zip(owned, tiers, strict=True):
    if tier.sensors:
      row[[names.index(s) for s in tier.sensors if s in names]] = True
    else:
      row[: -(-tier.part.numerator * size // tier.part.denominator)] = True
  return owned


def shuffle_sensors(
  owned: np.ndarray, coupling: float, rng: np.random.Generator
) -> np.ndarray:
  """Loosens the tie between a device and the installed sensors.

  A share of 1 - `coupling` of the clients, drawn at random, swap their sensor
  sets among each other by a random permutation. How many devices carry which
  set stays as it was, so fleets of different coupling compare; the expected
  rank correlation of speed and number of sensors falls in proportion to
  `coupling`.

  Args:
    owned: [N, M] bool, as the tiers have it.
    coupling: 1 leaves all as it is and draws nothing, 0 makes speed and
      sensors independent.
    rng: draws who swaps with whom.

  Returns:
    [N, M] bool.
  """
  count = round((1 - coupling) * len(owned))
  if count < 2:
    return owned
  who = rng.choice(len(owned), count, replace=False)
  owned = owned.copy()
  # `who` comes in random order: sorting it makes one side of the pairs.
  owned[np.sort(who)] = owned[who]
  return owned
