"""Draws the online world of a config, on the host."""

import jax.numpy as jnp
import ml_collections
import numpy as np

from relief_jax.errors import InputError
from relief_jax.online import (
  bandwidth_file,
  missing,
  presence,
  radio,
  streams,
)
from relief_jax.online.conditions import Online


def draw(
  config: ml_collections.ConfigDict,
  names: tuple[str, ...],
  owned: np.ndarray,
  rng: np.random.Generator,
) -> Online | None:
  """Draws the processes of the online world.

  Args:
    config: `config.online`.
    names: [M] of the modalities.
    owned: [N, M] bool, installed sensors.
    rng: each process draws from a child of its own, so that one of them
      changes nothing about the others.

  Returns:
    None where all are off: the world is static.

  Raises:
    InputError: of the processes; settings that contradict each other.
  """
  clients, modalities = owned.shape
  children = iter(rng.spawn(4))
  stream = streams.draw(config.stream, clients, next(children))
  lacking = missing.draw(config.missing, clients, modalities, next(children))
  planned = missing.outage(
    config.missing.outage, config.missing.share, names, owned, next(children)
  )
  around = presence.draw(config.presence, clients, next(children))
  found = (stream, lacking, planned, around, pace(config.pace, clients))
  _check(config, stream)
  if all(process is None for process in found):
    return None
  words = rng.integers(2**32, size=2, dtype=np.uint32)
  return Online(jnp.asarray(words), *found)


def pace(config: ml_collections.ConfigDict, clients: int) -> radio.Pace | None:
  """Reads the variation of processors and links from the config.

  Args:
    config: `config.online.pace`.
    clients: N.

  Raises:
    InputError: of the file of bandwidths.
  """
  found = radio.Pace(
    **{
      name: jnp.float32(config[name]) if config[name] else None
      for name in ('slowdown', 'fading', 'loss')
    }
  )
  if config.path:
    traces = bandwidth_file.read(config.path, clients, config.round_seconds)
    found = found._replace(bandwidth=traces)
  return None if all(v is None for v in found) else found


def _check(config: ml_collections.ConfigDict, stream) -> None:
  if stream is None:
    for name in ('drift', 'delay', 'spread'):
      if config.stream[name]:
        raise InputError(
          f'config.online.stream.{name} is {config.stream[name]} without a '
          'buffer',
          'a buffer that windows arrive in',
          'set --config.online.stream.buffer=100',
        )
  elif config.stream.arrive > config.stream.buffer:
    raise InputError(
      f'config.online.stream.arrive is {config.stream.arrive} with a buffer '
      f'of {config.stream.buffer} windows',
      'a buffer that holds what arrives in a round',
      'raise --config.online.stream.buffer',
    )
  # A number that nothing would look at is a slip of the pen.
  for name, rate, usual, kinds in (
    ('missing', config.missing.rate, 0.0, missing.KINDS),
    ('presence', config.presence.rate, 1.0, presence.KINDS),
  ):
    if config[name].kind == 'off' and rate != usual:
      raise InputError(
        f'config.online.{name}.rate is {rate} of kind off',
        f'a kind of {", ".join(kinds[1:])}',
        f'set --config.online.{name}.kind=each',
      )
  if config.missing.kind != 'off' and not config.missing.rate:
    raise InputError(
      f'config.online.missing.kind is {config.missing.kind} at a rate of 0',
      'a probability above 0',
      'set --config.online.missing.rate=0.3',
    )
