"""Shifts features: a device's sensors differ from the data set's. **Ours.**

A window of modality m on device n is read as

    clip(gain[n, m] * (jittered x) + bias[n, m] + noise[n, m] * normal)

in z-scored units, where the branch gathers it: nothing is copied per client,
and a part that is off is not in the program at all. What is drawn belongs to a
device and a window, as in a recording: the same window always comes with the
same noise. Test windows are not shifted, and `centralized` trains on windows as
they were recorded: the held-out and the pooled sensors are calibrated.

- gain: log-normal, exp(`gain` * normal);
- bias: normal with deviation `bias`, in deviations of the channel;
- noise: white; its deviation is uniform up to `noise` over devices;
- jitter: every sample is taken early or late by a normal deviate, at most one
  sample, whose deviation is uniform up to `jitter` over devices, in samples;
  values in between are interpolated linearly;
- clip: the sensor saturates at `clip` deviations of the channel;
- gap: a stretch of every window is lost and reads 0, its mean; its share of the
  window is uniform up to `gap` over devices, its place drawn;
- lost: whole windows are lost, a share of them uniform up to `lost` over
  devices. They count as those of a sensor that is not there.

By default every sensor of every device has its share of all that. With `share`
only that share of the (device, sensor) pairs is faulty, drawn, each at the full
level, and all others are as the data set's. With `period` a sensor's faults
come and go over so many rounds, as (1 + sin) / 2 from a place of its own.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.clients import noise as white
from relief_jax.engine import ambient
from relief_jax.types import Array, Shift

# Levels of a config; the other keys say whose, and when.
LEVELS = ('gain', 'bias', 'noise', 'jitter', 'clip', 'gap', 'lost')
# Those that need samples in time.
TIMED = ('jitter', 'gap')
_DRAWN = ('noise', 'jitter', 'gap', 'lost')
# Purposes of a window's key, behind the two of jitter and noise.
_GAP, _GONE = 2, 3


def draw(
  levels: Mapping[str, float],
  clients: int,
  modalities: int,
  rng: np.random.Generator,
) -> Shift | None:
  """Draws every device's shift.

  Args:
    levels: `LEVELS`, each from 0 (off); `share` of the sensors that are faulty
      (0: all, unequally), `period` in rounds (0: faults stay).
    clients: N.
    modalities: M.
    rng: the draws are always made, so that one level changes nothing about the
      others.

  Returns:
    Shift with [N, M] fields, None for what is off; None if all is.
  """
  on = {name: levels.get(name, 0.0) for name in LEVELS}
  if not any(on.values()):
    return None
  shape = (clients, modalities)
  gain = on['gain'] * rng.standard_normal(shape)
  bias = on['bias'] * rng.standard_normal(shape)
  part = {'noise': rng.random(shape), 'jitter': rng.random(shape)}
  seed = rng.integers(2**32, dtype=np.uint32)
  part |= {'gap': rng.random(shape), 'lost': rng.random(shape)}
  faulty, phase = rng.random(shape), rng.random(shape)
  share = levels.get('share', 0.0)
  bad = np.ones(shape)
  if share:  # exactly so many pairs
    rank = faulty.reshape(-1).argsort().argsort().reshape(shape)
    bad = (rank < round(share * faulty.size)).astype(float)
    part = dict.fromkeys(part, bad)
  found = {
    'gain': np.exp(bad * gain),
    'bias': bad * bias,
    **{name: on[name] * part[name] for name in _DRAWN},
    'clip': np.where(bad > 0, on['clip'] or np.inf, np.inf),
  }
  fields = {
    name: jnp.asarray(value, jnp.float32) if on[name] else None
    for name, value in found.items()
  }
  key = None
  if any(on[name] for name in _DRAWN):
    key = jnp.stack(
      [jnp.full(clients, seed), jnp.arange(clients, dtype=jnp.uint32)], 1
    )
  cycle = None
  if levels.get('period', 0.0):
    period = np.full(shape, levels['period'])
    cycle = jnp.asarray(np.stack([period, phase], -1), jnp.float32)
  return Shift(**fields, key=key, cycle=cycle)


def at_round(shift: Shift, round_index: Array) -> Shift:
  """Computes the faults of a round; constant unless they come and go.

  Args:
    shift: fields [K, M].
    round_index: [] int32.
  """
  if shift.cycle is None:
    return shift
  turns = round_index / shift.cycle[..., 0] + shift.cycle[..., 1]
  level = 0.5 * (1 + jnp.sin(2 * jnp.pi * turns))
  scaled = {
    name: getattr(shift, name) * level
    for name in ('bias', *_DRAWN)
    if getattr(shift, name) is not None
  }
  if shift.gain is not None:
    scaled['gain'] = shift.gain**level
  if shift.clip is not None:
    scaled['clip'] = shift.clip / jnp.maximum(level, 1e-3)
  return shift._replace(**scaled)


def _window_keys(shift: Shift, modality: int, row: Array) -> Array:
  """Derives [B] keys of a client's windows, from words: the seed and its id."""
  assert shift.key is not None  # something is drawn by window
  own = ambient.of_words(shift.key)
  own = jax.random.fold_in(own, modality)
  return jax.vmap(jax.random.fold_in, (None, 0))(own, row)


def lost(shift: Shift, modality: int, row: Array) -> Array | None:
  """Marks windows that a sensor does not deliver, [B] bool; None for none.

  Args:
    shift: of the client; fields [M].
    modality: number of it.
    row: [B] int32, the windows' rows in the bank.
  """
  if shift.lost is None:
    return None
  keys = _window_keys(shift, modality, row)
  drawn = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, _GONE)))
  return drawn(keys) < shift.lost[modality]


def apply(
  shift: Shift, modality: int, x: Array, row: Array, branch: bool = True
) -> Array:
  """Applies the faults of a client's own sensors to its windows.

  Args:
    shift: of the client; fields [M].
    modality: number of it.
    x: [B, time, channels] float32, z-scored.
    row: [B] int32, the windows' rows in the bank.
    branch: of `tree.choose`; noise is drawn only for a sensor that has any.

  Returns:
    [B, time, channels] float32.
  """
  if shift.key is not None:
    keys = _window_keys(shift, modality, row)
    jitter_key, noise_key = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
  if shift.jitter is not None:
    late = shift.jitter[modality] * _normal(jitter_key, x.shape[1:2])
    x = _displace(x, jnp.clip(late, -1, 1)[..., None])
  if shift.gain is not None:
    x = shift.gain[modality] * x
  if shift.bias is not None:
    x = x + shift.bias[modality]
  if shift.noise is not None:
    level = shift.noise[modality]
    x = tree.choose(
      level > 0,
      lambda x: x + level * _normal(noise_key, x.shape[1:]),
      lambda x: x,
      x,
      branch=branch,
    )
  if shift.clip is not None:
    x = jnp.clip(x, -shift.clip[modality], shift.clip[modality])
  if shift.gap is not None:
    x = jnp.where(_stretch(keys, shift.gap[modality], x.shape[1]), 0.0, x)
  return x


def _stretch(keys: Array, share: Array, width: int) -> Array:
  """Marks the samples in the gap of each window, [B, time, 1] bool."""
  start = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, _GAP)))
  first = start(keys)[:, None] * (1 - share)
  at = (jnp.arange(width) + 0.5)[None] / width
  return ((at >= first) & (at < first + share))[..., None]


def _normal(keys: Array, shape: tuple[int, ...]) -> Array:
  """Draws [B, *shape] float32, a key for each of B."""
  return jax.vmap(lambda key: white.normal(key, shape))(keys)


def _displace(x: Array, late: Array) -> Array:
  """Resamples `late` [B, time, 1], up to one sample after (before) time.

  Without a gather: only the two neighbours count. Ends are held.
  """
  after = jnp.concatenate([x[:, 1:], x[:, -1:]], 1)
  before = jnp.concatenate([x[:, :1], x[:, :-1]], 1)
  return (
    x
    + jnp.maximum(late, 0) * (after - x)
    + jnp.maximum(-late, 0) * (before - x)
  )
