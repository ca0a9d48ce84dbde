"""Makes synthetic sensor data, for use without any download. **Ours.**

Bodies move in a few *base* ways that every modality sees, each through its
own random channels, noise and blind spot (one pair of base ways that it hardly
separates): modalities overlap and complete each other. Some base ways come
in two variants that differ only in a slow or fast tremor which the *last*,
rare modality alone picks up. Without it those pairs of classes are one.

People differ by gain, offset, tempo and phase of every signal. Everything
follows from `config.seed`; a person's data do not depend on how many people
there are.
"""

from pathlib import Path

import ml_collections
import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets import npy
from relief_jax.datasets.windows import Windows, cut, gather
from relief_jax.errors import InputError

_RATE = 25.0  # Hz
_HARMONICS = 2
_KNOT = 4.0  # seconds between the knots of slow noise
_TREMOR = (2.5, 6.0)  # Hz, of the two variants of a base way
_NAMES = ('acc', 'gyro', 'mag', 'hr')


def modality_names(count: int) -> tuple[str, ...]:
  """Names `count` modalities, the rare one last.

  >>> modality_names(6)
  ('acc', 'gyro', 'mag', 'hr', 'm4', 'm5')
  """
  return _NAMES[:count] + tuple(f'm{i}' for i in range(len(_NAMES), count))


def base_and_variant(classes: int) -> tuple[NDArray, NDArray]:
  """Finds the base way and the variant of each class.

  A quarter of `classes` (at least one) are pairs of variants and come first.

  >>> base_and_variant(6)
  (array([0, 0, 1, 2, 3, 4]), array([0, 1, 0, 0, 0, 0]))

  Args:
    classes: at least 2.

  Returns:
    [classes] ints from 0 and [classes] 0 or 1.
  """
  pairs = max(1, classes // 4)
  number = np.arange(classes)
  paired = number < 2 * pairs
  base = np.where(paired, number // 2, number - pairs)
  return base, np.where(paired, number % 2, 0)


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Makes the data set; nothing is read or written.

  Windows are neighbouring, non-overlapping stretches of one run per person
  and class: `config.data.stride` has no effect.

  Args:
    config: `synthetic`, `data.width` and `seed` are used.
    root: unused, there for the data sets that read files.

  Returns:
    Windows, subjects 1 to `synthetic.subjects`, [., width, channels] each.

  Raises:
    InputError: more windows than fit into memory, or channels by name.
  """
  del root
  c = config.synthetic
  if config.data.channels:
    raise InputError(
      f'config.data.channels is {config.data.channels!r} for made-up data',
      "'', since they have no named channels",
      'set --config.synthetic.modalities and --config.synthetic.channels',
    )
  width, seed = config.data.width, config.seed
  windows = c.subjects * c.classes * c.windows_per_class
  size = 4 * windows * width * c.channels * c.modalities
  if size > npy.limit():
    raise InputError(
      f'{size:,} bytes of synthetic windows',
      f'at most {npy.limit():,}, half of the memory of this machine',
      'lower --config.synthetic.subjects, windows_per_class or '
      '--config.data.width',
    )
  names = modality_names(c.modalities)
  length = c.windows_per_class * width
  first = np.arange(c.classes) * length
  start, label = cut(first, np.full(c.classes, length), width, width)
  per_subject = len(start)
  shape = c.subjects * per_subject, width, c.channels
  x = {name: np.empty(shape, np.float32) for name in names}
  for m, name in enumerate(names):
    world = _world(seed, m, c)
    for s in range(c.subjects):
      rows = slice(s * per_subject, (s + 1) * per_subject)
      rng = np.random.default_rng([seed, 1 + s, m])
      gather(_record(rng, world, length, c), start, x[name][rows])
  subject = np.repeat(np.arange(c.subjects), per_subject)
  return Windows(
    x=x,
    y=np.tile(label, c.subjects).astype(np.int32),
    subject=(subject + 1).astype(np.int32),
    run=(subject * c.classes + np.tile(label, c.subjects)).astype(np.int32),
    start=np.tile(start, c.subjects),
    classes=_class_names(c.classes),
    rate=_RATE,
    width=width,
  )


def _class_names(classes: int) -> tuple[str, ...]:
  """Names the classes: base way a number, variant a letter if it has two."""
  base, _ = base_and_variant(classes)
  twice = np.bincount(base)[base] == 2
  number = range(classes)
  return tuple(f'way{base[k]}' + 'ab'[k % 2] * bool(twice[k]) for k in number)


def _world(seed: int, m: int, c: ml_collections.ConfigDict) -> dict:
  """Draws how modality m records every class, the same for all people.

  Returns:
    `offset` [classes, channels], amplitude `swing` [classes, harmonics, c],
    `phase` likewise, `tempo` [classes] Hz, and `tremor` [classes] Hz with its
    strength `shake` [channels], zero but in the last modality.
  """
  base, variant = base_and_variant(c.classes)
  ways = base.max() + 1
  tempo = np.random.default_rng([seed, 0]).permutation(
    np.linspace(0.6, 2.4, ways)
  )
  rng = np.random.default_rng([seed, 0, 1 + m])
  size = ways, _HARMONICS, c.channels
  offset = rng.normal(0.0, 1.0, (ways, c.channels))
  swing = rng.uniform(0.3, 1.2, size)
  phase = rng.uniform(0.0, 2 * np.pi, size)
  if ways > 2:  # the blind spot: two ways that look alike to this modality
    one, other = m % ways, (m + 1) % ways
    offset[other] = 0.9 * offset[one] + 0.1 * offset[other]
    swing[other], phase[other] = swing[one], phase[one]
    tempo[other] = 0.9 * tempo[one] + 0.1 * tempo[other]
  rare = m == c.modalities - 1
  return dict(
    offset=offset[base],
    swing=swing[base],
    phase=phase[base],
    tempo=tempo[base],
    tremor=np.asarray(_TREMOR)[variant],
    shake=rare * rng.uniform(1.0, 1.5, c.channels),
  )


def _record(
  rng: np.random.Generator,
  world: dict,
  length: int,
  c: ml_collections.ConfigDict,
) -> NDArray:
  """Draws one person's signals of a modality, [classes * length, channels].

  float32.
  """
  time = np.arange(length) / _RATE
  gain = np.exp(0.4 * c.style * rng.normal(size=c.channels))
  shift = 0.6 * c.style * rng.normal(size=c.channels)
  haste = np.exp(0.1 * c.style * rng.normal())
  lag = rng.uniform(0.0, 2 * np.pi, c.classes)
  signal = np.empty((c.classes, length, c.channels), np.float32)
  for k in range(c.classes):
    clock = 2 * np.pi * time * world['tempo'][k] * haste + lag[k]
    clean = np.broadcast_to(world['offset'][k], (length, c.channels)).copy()
    for h in range(_HARMONICS):
      swing, phase = world['swing'][k, h], world['phase'][k, h]
      clean += swing * np.sin((h + 1) * clock[:, None] + phase)
    if world['shake'].any():
      shaking = np.sin(2 * np.pi * time * world['tremor'][k] + lag[k])
      clean += world['shake'] * shaking[:, None]
    signal[k] = gain * clean + shift
  signal += c.noise * rng.standard_normal(signal.shape, np.float32)
  signal += 0.7 * c.noise * _drift(rng, signal.shape)
  return signal.reshape(-1, c.channels)


def _drift(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray:
  """Draws slow noise, [classes, length, channels], linear between random knots.

  White noise alone averages out over a window; this does not, and makes the
  windows of a person differ.
  """
  classes, length, channels = shape
  knot = np.arange(length) / (_KNOT * _RATE)
  left = knot.astype(np.int64)
  part = (knot - left)[:, None]
  knots = rng.normal(size=(classes, left[-1] + 2, channels))
  return (1 - part) * knots[:, left] + part * knots[:, left + 1]
