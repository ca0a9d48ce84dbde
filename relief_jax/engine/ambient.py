"""Pins process-wide settings of JAX on which no number may depend. **Ours.**

A cluster's environment (`JAX_THREEFRY_PARTITIONABLE=0`), or a program that a
simulation is a part of (`jax_enable_x64`), sets what every draw and every type
follows. Code that enters here gets the values below for as long as a call
takes, and its own again afterwards. Keys name their generator.

Settings of the user's choice that change numbers beyond our tests' reach are
left as they are and recorded with a run: `chosen`.
"""

import contextlib
import os
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.types import Array

GENERATOR = 'threefry2x32'  # two words make a key

# Names of `jax.config`, without their `jax_`, and of JAX's own contexts.
PINNED = {
  'enable_x64': False,
  'threefry_partitionable': True,
  'default_prng_impl': GENERATOR,
  'enable_custom_prng': False,
  'numpy_dtype_promotion': 'standard',
  'softmax_custom_jvp': True,
  'disable_jit': False,
  # Padding and what nobody measured are NaN on purpose; `Diverged` tells
  # where a run breaks.
  'debug_nans': False,
  'debug_infs': False,
}


@contextlib.contextmanager
def pinned() -> Iterator[None]:
  """Holds JAX's settings at `PINNED` in a block, or in a decorated function.

  >>> with jax.enable_x64(True), pinned():
  ...   jax.numpy.arange(2).dtype
  dtype('int32')
  """
  with contextlib.ExitStack() as stack:
    for name, value in PINNED.items():
      stack.enter_context(getattr(jax, name)(value))
    yield


def pin_process() -> None:
  """Sets `PINNED` for good: for programs of our own, before any work."""
  for name, value in PINNED.items():
    jax.config.update(f'jax_{name}', value)


def key(seed: int) -> Array:
  """Builds the key of a seed, [] of `GENERATOR`; all 64 bits of it count.

  Args:
    seed: as Python or NumPy know integers.
  """
  low, high = int(seed) & 0xFFFFFFFF, int(seed) >> 32 & 0xFFFFFFFF
  if -(2**31) <= seed < 0:  # as JAX has it
    high = 0
  return of_words(np.array([high, low], np.uint32))


def of_words(words: Array | np.ndarray) -> Array:
  """Builds keys of `GENERATOR`, [...], from their words [..., 2] uint32."""
  return jax.random.wrap_key_data(jnp.asarray(words), impl=GENERATOR)


def chosen() -> dict[str, str | None]:
  """Gives the user's settings that a result depends on, by name."""
  return {
    'jax_default_matmul_precision': jax.config.values[
      'jax_default_matmul_precision'
    ],
    'NVIDIA_TF32_OVERRIDE': os.environ.get('NVIDIA_TF32_OVERRIDE'),
  }
