"""Assigns sensors and devices to clients: the fleets, **ours**.

A fleet is a tuple of tiers. Tiers are nested, cheap devices carry fewer
sensors: a tier owns the first of the data set's modalities. Everything here is
**ours**; the paper names only its two-device testbed.

To add a fleet, add it to `FLEETS`, or write it into a file (`fleet_files.py`)
and give its path for the name, or name it where it is (`plugins.py`). To use
the figures of your own device:

>>> from relief_jax.devices import DEVICES, Device
>>> DEVICES['mine'] = Device(1e9, 0.5, 2.0, 1.0, 1.0, 0.5, 1e7, 1e7)
>>> FLEETS['mine'] = Tiers((Tier('same', 100, Fraction(1), 'mine'),))
>>> fleet = build('mine', 2, ('acc',), np.ones(2), np.random.default_rng(0))
>>> fleet.speed
Array([5.e+08, 5.e+08], dtype=float32)
>>> del FLEETS['mine'], DEVICES['mine']
"""

from collections.abc import Sequence
from fractions import Fraction

import jax.numpy as jnp
import numpy as np

from relief_jax import plugins
from relief_jax.devices import Device, device
from relief_jax.errors import InputError, unknown
from relief_jax.types import Fleet
from relief_jax.world import fleet_files
from relief_jax.world.tiers import (
  Tier,
  Tiers,
  counts,
  owned_by,
  shuffle_sensors,
)

_ALL = Fraction(1)

FLEETS = {
  # Fastest over slowest: 27.7 (266 against 9.6 GFLOP/s).
  'four_tiers': Tiers(
    (
      Tier('low', 40, Fraction(1, 4), 'raspberry_pi_4'),
      Tier('mid', 30, Fraction(2, 4), 'jetson_nano'),
      Tier('high', 20, Fraction(3, 4), 'jetson_xavier_nx'),
      Tier('full', 10, _ALL, 'jetson_agx_orin'),
    )
  ),
  # An AGX Orin slowed down to a ratio of exactly 20, to compare with other
  # simulations of that ratio.
  'three_tiers': Tiers(
    (
      Tier('low', 50, Fraction(1, 3), 'raspberry_pi_4'),
      Tier('mid', 30, Fraction(2, 3), 'jetson_nano'),
      Tier('full', 20, _ALL, 'jetson_agx_orin', speed=192e9),
    )
  ),
  # As `four_tiers` with a microcontroller below: ratio about 1400.
  'extreme': Tiers(
    (
      Tier('low', 40, Fraction(1, 4), 'cortex_m7'),
      Tier('mid', 30, Fraction(2, 4), 'raspberry_pi_4'),
      Tier('high', 20, Fraction(3, 4), 'jetson_xavier_nx'),
      Tier('full', 10, _ALL, 'jetson_agx_orin'),
    )
  ),
  # No heterogeneity: every method must then equal its plain twin.
  'uniform': Tiers((Tier('same', 100, _ALL, 'jetson_nano'),)),
  # The two devices of the paper's testbed, emulated from data sheets.
  'testbed': Tiers((Tier('full', 100, _ALL, 'jetson_agx_orin'),), clients=2),
}

KIND = plugins.Kind(
  'fleet',
  'fleet',
  'relief_jax.fleets',
  FLEETS,
  'a world.tiers.Tiers',
  lambda value: isinstance(value, Tiers),
)


def find(name: str) -> Tiers:
  """Finds the description of a fleet; a path of a .csv or .json is read.

  Raises:
    InputError: no such fleet, or a file that is none.
  """
  if fleet_files.is_path(name):
    return fleet_files.read(name)
  return plugins.find(KIND, name)


def tier_names(name: str) -> tuple[str, ...]:
  """Gives the names of a fleet's tiers, in the order of `Fleet.tier`.

  >>> tier_names('four_tiers')
  ('low', 'mid', 'high', 'full')

  Raises:
    InputError: no such fleet.
  """
  return tuple(tier.name for tier in find(name).tiers)


def sources(name: str) -> dict[str, str]:
  """Gives the sources of tiers' shares, {tier: source}, of those that have one.

  Raises:
    InputError: no such fleet.
  """
  return {tier.name: tier.source for tier in find(name).tiers if tier.source}


def build(
  name: str,
  clients: int,
  modalities: tuple[str, ...],
  samples: np.ndarray,
  rng: np.random.Generator,
  coupling: float = 1.0,
  spread: float = 0.0,
) -> Fleet:
  """Builds the clients of a fleet, with tiers assigned at random.

  A permutation makes tier and data independent: else the first subjects would
  always be the slow ones.

  Args:
    name: in `FLEETS`, or a path.
    clients: N.
    modalities: names in the data set's order, common ones first.
    samples: [N] int, windows of every client.
    rng: assigns the tiers, and the sensors where they are shuffled.
    coupling: of speed and number of sensors, see `tiers.shuffle_sensors`.
    spread: deviation of the log of a device's speed about its tier's, which is
      the median. A budget is of the device's own speed.

  Returns:
    Fleet of N clients; `budget` is one FLOP until `deadlines.with_budgets`.

  Raises:
    InputError: unknown fleet, a size it does not come in, a sensor that the
      data do not have, or a modality that no device would own.
  """
  tiers, size = find(name)
  for one in tiers:
    for sensor in one.sensors:
      if sensor not in modalities:
        raise unknown(
          f'sensor of tier {one.name!r} of the fleet {name!r}',
          sensor,
          modalities,
        )
  if clients < 1 or (size and clients != size):
    raise InputError(
      f'{clients} clients for the fleet {name!r}',
      f'exactly {size}' if size else 'at least 1',
      f'set --config.clients={size or 48}',
    )
  samples = np.asarray(samples)
  if samples.shape != (clients,):
    raise InputError(
      f'sample counts of shape {samples.shape} for {clients} clients',
      f'shape ({clients},)',
      'partition the data into as many clients as the fleet has',
    )
  tier = rng.permutation(
    np.repeat(np.arange(len(tiers)), counts(tiers, clients))
  )
  owned = shuffle_sensors(owned_by(tiers, modalities)[tier], coupling, rng)
  _refuse_orphans(name, clients, modalities, owned[samples > 0])
  profiles = [
    t.device if isinstance(t.device, Device) else device(t.device)
    for t in tiers
  ]
  speed = [t.speed or d.speed for t, d in zip(tiers, profiles, strict=True)]

  memory = np.array([d.memory for d in profiles])
  # Last of all draws: without a spread nothing else changes.
  pace = np.exp(spread * rng.standard_normal(clients)) if spread else 1.0

  def per_client(values):
    return jnp.asarray(np.asarray(values, np.float32)[tier])

  return Fleet(
    id=jnp.asarray(np.arange(clients), jnp.int32),
    owned=jnp.asarray(owned),
    tier=jnp.asarray(tier, jnp.int32),
    samples=jnp.asarray(samples, jnp.int32),
    speed=per_client(speed) * jnp.asarray(pace, jnp.float32),
    uplink=per_client([d.uplink for d in profiles]),
    downlink=per_client([d.downlink for d in profiles]),
    watts=per_client([d.watts for d in profiles]),
    budget=per_client(np.ones(len(tiers))),
    memory=per_client(memory) if np.isfinite(memory).any() else None,
  )


def smallest(name: str, modalities: int | Sequence[str]) -> int:
  """Finds the fewest clients with an owner for every modality; 0: none do.

  >>> smallest('four_tiers', 4)
  5

  Args:
    name: in `FLEETS`, or a path.
    modalities: M, or the names where a tier lists its sensors.

  Raises:
    InputError: no such fleet.
  """
  tiers, size = find(name)
  owned = owned_by(tiers, modalities)
  # Every tier has a client once the smallest share makes a whole one.
  most = size or int(-(-100 // min(tier.share for tier in tiers)))
  for clients in range(size or 1, most + 1):
    if owned[np.array(counts(tiers, clients)) > 0].any(0).all():
      return clients
  return 0


def _refuse_orphans(
  name: str, clients: int, modalities: tuple[str, ...], owned: np.ndarray
) -> None:
  """Raises unless the clients with data `owned` [n, M] cover the modalities."""
  orphans = [m for i, m in enumerate(modalities) if not owned[:, i].any()]
  if not orphans:
    return
  enough = smallest(name, modalities)
  if not enough:
    cure = 'give a tier of the fleet that sensor'
  elif clients < enough:
    cure = f'set --config.clients={enough} or more'
  else:
    cure = 'give every client at least one window'
  raise InputError(
    f'a cohort with no device: none of the {len(owned)} clients with data of '
    f'the fleet {name!r} owns {", ".join(orphans)}',
    'an owner for every modality',
    cure + ', or --config.fleet=uniform',
  )


def rarest(fleet: Fleet, modalities: tuple[str, ...]) -> int:
  """Finds the index of the modality with the fewest owners, the last of a tie.

  Padding clients (no samples) are not counted.

  Args:
    fleet: [N] clients.
    modalities: names in the order of the fleet's [M] axis.

  Raises:
    InputError: the fleet was built for another number of modalities.
  """
  owners = np.asarray(fleet.owned)[np.asarray(fleet.samples) > 0].sum(0)
  if owners.shape != (len(modalities),):
    raise InputError(
      f'a fleet of {owners.size} modalities for {len(modalities)} names',
      'as many of one as of the other',
      'pass the names of the task the fleet was built for',
    )
  return len(modalities) - 1 - int(np.argmin(owners[::-1]))
