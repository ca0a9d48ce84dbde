"""Draws devices that are away for a round. **Ours**, but for the axis (FLGo's).

A client that is drawn and away sits the round out, at no cost: the server finds
out when it asks. So a round may be smaller than `clients_per_round`.
"""

import csv
import io
from typing import NamedTuple

import jax.numpy as jnp
import ml_collections
import numpy as np

from relief_jax.errors import InputError
from relief_jax.files import paths, text_files
from relief_jax.online import chain, keys, missing, windows_file
from relief_jax.online.windows_file import Windows
from relief_jax.types import Array


class Rates(NamedTuple):
  """Describes presence that is independent between rounds, or daily.

  Attributes:
    rate: [N] probability of being there, its mean over a day.
    amplitude: [] of the daily rate: 0, or 1 for a rate that goes as 1 + sin
      over a day.
    period: [] rounds in a day.
    phase: [N] in [0, 1), time zones.
  """

  rate: Array
  amplitude: Array
  period: Array
  phase: Array


class Stays(NamedTuple):
  """Describes devices that are away for several rounds at a time.

  Attributes:
    chain: of [N], `down` is away.
  """

  chain: chain.Chain


class Trace(NamedTuple):
  """Holds a recorded presence; begins again after its last round.

  Attributes:
    here: [R, N] bool.
  """

  here: Array


KINDS = ('off', 'each', 'diurnal', 'stays', 'trace', 'windows')


def draw(
  config: ml_collections.ConfigDict, clients: int, rng: np.random.Generator
) -> Rates | Stays | Trace | Windows | None:
  """Draws the process that `config.online.presence` describes.

  Args:
    config: `kind`, `rate`, `spread`, `period`, `length`, `path`,
      `round_seconds`.
    clients: N.
    rng: draws rates and phases.

  Raises:
    InputError: a trace that cannot be read, that nobody would read, or of
      other devices; of `chain.make`.
  """
  if config.path and config.kind not in ('trace', 'windows'):
    raise InputError(
      f'config.online.presence.path={config.path!r} with kind={config.kind!r}, '
      'which does not read it',
      'a path for kind=trace and kind=windows only',
      'set --config.online.presence.kind=trace, or leave the path out',
    )
  if config.kind == 'off':
    return None
  if config.kind == 'trace':
    found = read(config.path)
    if found.shape[1] != clients:
      raise InputError(
        f'{config.path}: {found.shape[1]} columns for {clients} devices',
        'a column for every device',
        f'set --config.clients={found.shape[1]}, or write a trace of {clients}',
      )
    return Trace(jnp.asarray(found))
  if config.kind == 'windows':
    return windows_file.read(config.path, clients, config.round_seconds)
  rate = missing.rates(config.rate, config.spread, (clients,), rng)
  if config.kind == 'stays':
    return Stays(chain.make(1 - rate, config.length, 'online.presence.length'))
  return Rates(
    rate=jnp.asarray(rate, jnp.float32),
    amplitude=jnp.float32(config.kind == 'diurnal'),
    period=jnp.float32(config.period),
    phase=jnp.asarray(rng.random(clients), jnp.float32),
  )


def read(path: str) -> np.ndarray:
  """Reads a trace: one line per round of 0 and 1, one column per device.

  Args:
    path: of a CSV file without a header.

  Returns:
    [R, devices] bool.

  Raises:
    InputError: no such file, or anything but 0 and 1 in equal lines.
  """
  cure = 'write one line a round, such as 1,0,1,1'
  expected = 'lines of equally many 0 and 1'
  try:
    path = paths.expand(path, 'config.online.presence.path')
    text = io.StringIO(text_files.read(path), newline='')
    lines = [line for line in csv.reader(text) if line]
  except csv.Error as error:
    raise InputError(f'{path!r}: {error}', expected, cure) from None
  if not lines:
    raise InputError(f'{path}: no line', expected, cure)
  for number, line in enumerate(lines, 1):
    if len(line) != len(lines[0]):
      raise InputError(
        f'{path}, line {number}: {len(line)} columns',
        f'{len(lines[0])} as in the first line',
        cure,
      )
    for value in line:
      if value.strip() not in ('0', '1'):
        raise InputError(f'{path}, line {number}: {value!r}', expected, cure)
  return np.array([[v.strip() == '1' for v in line] for line in lines])


def here(
  process: Rates | Stays | Trace | Windows,
  words: Array,
  ids: Array,
  place: Array,
  round_index: Array,
) -> Array:
  """Tells whether each participant is present in a round, [K] bool.

  Args:
    process: of all clients.
    words: key of the world.
    ids: [K] of the participants.
    place: [K] places in the population.
    round_index: [] int32.
  """
  key = keys.of(words, keys.PRESENCE)
  if isinstance(process, Trace):
    return process.here[round_index % len(process.here), place]
  if isinstance(process, Windows):
    return windows_file.here(process, place, round_index)
  if isinstance(process, Stays):
    return ~chain.down(process.chain, key, ids, place, round_index)
  day = round_index / process.period + process.phase[place]
  rate = process.rate[place] * (
    1 + process.amplitude * jnp.sin(2 * jnp.pi * day)
  )
  return keys.uniform(keys.at(key, round_index), ids) < rate
