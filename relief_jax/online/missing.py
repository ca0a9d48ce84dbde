"""Draws sensors that deliver nothing for a round: `avail` [K, M].

**Ours** but One.

`fleet.owned` marks the installed sensors; one that fails delivers no window, so
its encoder does not run, nothing of it is trained, sent or paid for.
"""

from typing import NamedTuple

import jax.numpy as jnp
import ml_collections
import numpy as np

from relief_jax.errors import InputError, unknown
from relief_jax.online import chain, keys
from relief_jax.types import Array


class Each(NamedTuple):
  """Describes failures of every sensor by itself, independent between rounds.

  Attributes:
    rate: [N, M] probability that it is missing.
  """

  rate: Array


class One(NamedTuple):
  """Describes rounds in which one sensor, drawn uniformly, may be missing.

  MMO-FL's (https://arxiv.org/abs/2505.16138): the same sensor in the whole
  fleet, or an option, every device its own.

  Attributes:
    rate: [N] probability that one is missing.
    common: [] bool, the draw is the fleet's.
  """

  rate: Array
  common: Array


class Bursts(NamedTuple):
  """Describes failures of every sensor by itself, in outages of several rounds.

  Attributes:
    chain: of [N, M].
  """

  chain: chain.Chain


class Outage(NamedTuple):
  """Describes a planned outage, to see how methods recover.

  Attributes:
    struck: [N, M] bool, the sensors that fail.
    first: [] int32, first round without.
    until: [] int32, first round with it again.
  """

  struck: Array
  first: Array
  until: Array


KINDS = ('off', 'each', 'one', 'fleet', 'bursts')


def rates(
  mean: float, spread: float, shape, rng: np.random.Generator
) -> np.ndarray:
  """Draws rates that differ between clients: beta-distributed.

  Args:
    mean: of the rates.
    spread: variance over its largest possible value mean (1 - mean); 0: all
      the same.
    shape: of the result.
    rng: draws.
  """
  if not spread or mean in (0, 1):
    return np.full(shape, mean)
  strength = (1 - spread) / spread
  return rng.beta(mean * strength, (1 - mean) * strength, shape)


def draw(
  config: ml_collections.ConfigDict,
  clients: int,
  modalities: int,
  rng: np.random.Generator,
) -> Each | One | Bursts | None:
  """Draws the process that `config.online.missing` describes.

  Args:
    config: `kind`, `rate`, `spread`, `length`.
    clients: N.
    modalities: M.
    rng: draws the rates.

  Raises:
    InputError: of `chain.make`.
  """
  if config.kind == 'off' or not config.rate:
    return None
  if config.kind in ('one', 'fleet'):
    rate = rates(config.rate, config.spread, (clients,), rng)
    return One(
      jnp.asarray(rate, jnp.float32), jnp.asarray(config.kind == 'fleet')
    )
  rate = rates(config.rate, config.spread, (clients, modalities), rng)
  if config.kind == 'each':
    return Each(jnp.asarray(rate, jnp.float32))
  return Bursts(chain.make(rate, config.length, 'online.missing.length'))


def parse_outage(text: str) -> tuple[str, int, int]:
  """Reads `<modality>:<first round>-<first round after it>`.

  >>> parse_outage('acc:20-40')
  ('acc', 20, 40)

  Raises:
    InputError: it cannot be read.
  """
  name, _, span = text.partition(':')
  first, _, until = span.partition('-')
  if not (first.isdecimal() and until.isdecimal() and int(first) < int(until)):
    raise InputError(
      f'config.online.missing.outage is {text!r}',
      '<modality>:<first round>-<first round after it>',
      'set --config.online.missing.outage=acc:20-40',
    )
  return name, int(first), int(until)


def outage(
  text: str, share: float, names, owned: np.ndarray, rng: np.random.Generator
) -> Outage | None:
  """Draws the clients of a planned outage.

  Args:
    text: of `parse_outage`; '' for none.
    share: of the owners, drawn, whose sensor fails; at least one.
    names: [M] of the modalities.
    owned: [N, M] bool.
    rng: draws whose sensor fails.

  Raises:
    InputError: it cannot be read, or no such modality.
  """
  if not text:
    return None
  name, first, until = parse_outage(text)
  if name not in names:
    raise unknown('modality in config.online.missing.outage', name, names)
  m = list(names).index(name)
  owners = np.flatnonzero(owned[:, m])
  count = max(1, round(share * len(owners)))
  struck = np.zeros(owned.shape, bool)
  struck[rng.permutation(owners)[:count], m] = True
  return Outage(jnp.asarray(struck), jnp.int32(first), jnp.int32(until))


def lost_sensors(
  process: Each | One | Bursts | None,
  planned: Outage | None,
  words: Array,
  ids: Array,
  place: Array,
  round_index: Array,
  modalities: int,
) -> Array:
  """Marks the sensors that are missing in a round, [K, M] bool, owned or not.

  Args:
    process: of all clients.
    planned: an outage.
    words: key of the world.
    ids: [K] of the participants.
    place: [K] places in the population.
    round_index: [] int32.
    modalities: M.
  """
  key = keys.of(words, keys.MISSING)
  lost = jnp.zeros((ids.size, modalities), bool)
  if isinstance(process, Bursts):
    lost = chain.down(process.chain, key, ids, place, round_index)
  elif isinstance(process, Each):
    drawn = keys.uniform(keys.at(key, round_index), ids, (modalities,))
    lost = drawn < process.rate[place]
  elif isinstance(process, One):
    # Of one client for all, so that two fleets share their bad rounds.
    who = jnp.where(process.common, 0, ids)
    hit = keys.uniform(keys.at(key, round_index), who) < process.rate[place]
    pick = keys.uniform(keys.at(keys.of(words, keys.WHICH), round_index), who)
    which = jnp.floor(pick * modalities).astype(jnp.int32)
    lost = hit[:, None] & (which[:, None] == jnp.arange(modalities)[None])
  if planned is not None:
    now = (round_index >= planned.first) & (round_index < planned.until)
    lost |= now & planned.struck[place]
  return lost
