"""Feature shift: how a device's sensors differ from the data set's. **Ours.**

A window of modality m on device n is read as

    gain[n, m] * (jittered x) + bias[n, m] + noise[n, m] * normal

in z-scored units, where the branch gathers it: nothing is copied per client,
and a part that is off is not in the program at all. Noise and jitter belong to
a device and a window, as in a recording: the same window always comes with the
same noise. Test windows are not shifted, and `centralized` trains on windows as
they were recorded: the held-out and the pooled sensors are calibrated.

- gain: log-normal, exp(`gain` * normal);
- bias: normal with deviation `bias`, in deviations of the channel;
- noise: white; its deviation is uniform up to `noise` over devices;
- jitter: every sample is taken early or late by a normal deviate, at most one
  sample, whose deviation is uniform up to `jitter` over devices, in samples;
  values in between are interpolated linearly.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import noise as white
from relief_jax.types import Array, Shift

_KEYS = 'threefry2x32'  # whatever JAX draws by: two words make a key


def draw(
  levels: Mapping[str, float],
  clients: int,
  modalities: int,
  rng: np.random.Generator,
) -> Shift | None:
  """Draws every device's shift.

  Args:
    levels: `gain`, `bias`, `noise`, `jitter`, each from 0 (off).
    clients: N.
    modalities: M.
    rng: the four draws are always made, so that one level changes nothing
      about the others.

  Returns:
    Shift with [N, M] fields, None for what is off; None if all is.
  """
  if not any(levels.values()):
    return None
  shape = (clients, modalities)
  gain = np.exp(levels['gain'] * rng.standard_normal(shape))
  bias = levels['bias'] * rng.standard_normal(shape)
  noise = levels['noise'] * rng.random(shape)
  jitter = levels['jitter'] * rng.random(shape)
  seed = rng.integers(2**32, dtype=np.uint32)
  found = {'gain': gain, 'bias': bias, 'noise': noise, 'jitter': jitter}
  fields = {
    name: jnp.asarray(value, jnp.float32) if levels[name] else None
    for name, value in found.items()
  }
  key = None
  if levels['noise'] or levels['jitter']:
    key = jnp.stack(
      [jnp.full(clients, seed), jnp.arange(clients, dtype=jnp.uint32)], 1
    )
  return Shift(**fields, key=key)


def apply(shift: Shift, modality: int, x: Array, row: Array) -> Array:
  """One client's windows as its own sensors deliver them.

  Args:
    shift: of the client; fields [M].
    modality: number of it.
    x: [B, time, channels] float32, z-scored.
    row: [B] int32, the windows' rows in the bank.

  Returns:
    [B, time, channels] float32.
  """
  if shift.key is not None:
    # The seed and the client's id are the words of a key.
    own = jax.random.wrap_key_data(shift.key, impl=_KEYS)
    own = jax.random.fold_in(own, modality)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(own, row)
    jitter_key, noise_key = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
  if shift.jitter is not None:
    late = shift.jitter[modality] * _normal(jitter_key, x.shape[1:2])
    x = _displace(x, jnp.clip(late, -1, 1)[..., None])
  if shift.gain is not None:
    x = shift.gain[modality] * x
  if shift.bias is not None:
    x = x + shift.bias[modality]
  if shift.noise is not None:
    x = x + shift.noise[modality] * _normal(noise_key, x.shape[1:])
  return x


def _normal(keys: Array, shape: tuple[int, ...]) -> Array:
  """[B, *shape] float32, a key for each of B."""
  return jax.vmap(lambda key: white.normal(key, shape))(keys)


def _displace(x: Array, late: Array) -> Array:
  """Samples taken `late` [B, time, 1], up to one sample after (before) time.

  Without a gather: only the two neighbours count. Ends are held.
  """
  after = jnp.concatenate([x[:, 1:], x[:, -1:]], 1)
  before = jnp.concatenate([x[:, :1], x[:, :-1]], 1)
  return (
    x
    + jnp.maximum(late, 0) * (after - x)
    + jnp.maximum(-late, 0) * (before - x)
  )
