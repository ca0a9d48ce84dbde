"""Which form of a client's own 1-D convolution is the fastest to train?

python -m benchmarks.conv_lowering [--channels=9] [--batch=32]
  [--repeats=15] [--smoke]

One SGD step of one encoder of the sensor workload (batch 32, 128 samples,
kernel 5, stride 2, 32 and 64 filters, mean over time) inside a scan, forward
and backward, on one device. The forms take turns, so that a busy minute of the
machine is shared by all; one JSON line per form, with its useful FLOP/s beside
those of a product of two 1024 matrices of the same turns.

- `conv`: `lax.conv_general_dilated`, differentiated by JAX.
- `patches`: `lax.conv_general_dilated_patches` and a product.
- `taps`: im2col by a strided slice per tap and a product.
- `shifted`: a product per tap, summed.
- `rows`: im2col by one contiguous slice per position (`layers.columns`),
  differentiated by JAX.
- `ours`: the same columns with the gradient written out
  (`layers.conv1d_relu`), which all models use.
- `vmapped`: `ours` for 8 clients at once, each with its own weights: products
  batched over clients, as they would be over modalities of equal shapes.

All forms agree: the largest difference of their updates is in the line.
"""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import common
from relief_jax import simulate
from relief_jax.cli import command
from relief_jax.engine import ambient, placement
from relief_jax.models import layers
from relief_jax.runs import step_times

_CHANNELS = flags.DEFINE_integer('channels', 9, 'of the window')
_BATCH = flags.DEFINE_integer('batch', 32, 'windows of a step')
_REPEATS = flags.DEFINE_integer('repeats', 15, 'timed turns')
_FORMS = flags.DEFINE_list('forms', None, 'forms; all of them by default')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')

KERNEL, STRIDE = 5, 2
TOGETHER = 8


def _relu(y, b):
  return jax.nn.relu(layers.bias(y, b))


def _conv(x, w, b):
  filters = w.reshape(len(w), KERNEL, -1)
  y = jax.lax.conv_general_dilated(
    x, filters, (STRIDE,), 'VALID', dimension_numbers=('NWC', 'OWI', 'NWC')
  )
  return _relu(y, b)


def _patches(x, w, b):
  found = jax.lax.conv_general_dilated_patches(
    x, (KERNEL,), (STRIDE,), 'VALID', dimension_numbers=('NWC', 'WIO', 'NWC')
  )
  # Patches come channel by channel, weights tap by tap.
  ordered = w.reshape(len(w), KERNEL, -1).swapaxes(1, 2).reshape(w.shape)
  return _relu(found @ ordered.T, b)


def _slices(x):
  last = STRIDE * (layers.conv_length(x.shape[1], KERNEL, STRIDE) - 1) + 1
  return [x[:, i : i + last : STRIDE] for i in range(KERNEL)]


def _taps(x, w, b):
  return _relu(jnp.concatenate(_slices(x), -1) @ w.T, b)


def _shifted(x, w, b):
  taps = w.reshape(len(w), KERNEL, -1)
  parts = [part @ taps[:, i].T for i, part in enumerate(_slices(x))]
  return _relu(sum(parts[1:], parts[0]), b)


def _rows(x, w, b):
  cols = layers.columns(x, KERNEL, STRIDE)[:, : w.shape[1]]
  return _relu((cols @ w.T).reshape(len(x), -1, len(w)), b)


def _ours(x, w, b):
  return layers.conv1d_relu(x, w, b, KERNEL, STRIDE)


FORMS = {
  'conv': _conv,
  'patches': _patches,
  'taps': _taps,
  'shifted': _shifted,
  'rows': _rows,
  'ours': _ours,
  'vmapped': _ours,
}


def make_steps(form, bank, rows, params, together: int):
  """Compiles () -> params after one SGD step per row of `rows`."""

  def encode(params, x):
    for w, b in params:
      x = form(x, w, b)
    return x.mean(1)

  def loss(params, row):
    # As in a round: gathered in a branch, apart from the first layer.
    x = jax.lax.cond(
      row[0] >= 0,
      lambda: bank[row],
      lambda: jnp.zeros((*row.shape, *bank.shape[1:])),
    )
    return jnp.square(encode(params, x)).sum()

  def step(params, row):
    grads = jax.grad(loss)(params, row)
    return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), None

  def client(params):
    return jax.lax.scan(step, params, rows)[0]

  if together == 1:
    compiled = jax.jit(client).lower(params).compile()
    return lambda: compiled(params)
  own = jax.tree.map(lambda v: jnp.stack([v] * together), params)
  compiled = jax.jit(jax.vmap(client)).lower(own).compile()
  return lambda: compiled(own)


def main(argv):
  """Times all forms in turns."""
  del argv
  simulate.set_devices(1)
  batch, width, steps = _BATCH.value, 128, 32
  if _SMOKE.value:
    batch, width, steps = 4, 32, 2
  sizes = (_CHANNELS.value, *((4, 8) if _SMOKE.value else (32, 64)))
  rng = np.random.default_rng(0)
  bank = jnp.asarray(rng.normal(size=(1000, width, sizes[0])) / 10, jnp.float32)
  rows = jnp.asarray(rng.integers(0, 1000, (steps, batch)), jnp.int32)
  keys = jax.random.split(ambient.key(0), len(sizes))
  params = [
    (layers.dense_init(k, KERNEL * a, b).T, jnp.zeros(b))
    for k, a, b in zip(keys, sizes, sizes[1:], strict=False)
  ]
  flops, length = 0.0, width
  for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
    length = layers.conv_length(length, KERNEL, STRIDE)
    passes = 2 if i == 0 else 3  # nobody needs the windows' gradient
    flops += passes * batch * layers.conv_flops(length, KERNEL, a, b)

  names = _FORMS.value or list(FORMS)
  runs = {
    name: make_steps(
      FORMS[name],
      bank,
      rows,
      params,
      TOGETHER if name == 'vmapped' else 1,
    )
    for name in names
  }
  size = 64 if _SMOKE.value else 1024
  product = common.matrix_product(size, placement.Layout())
  runs['product'] = product.call
  last = {name: run() for name, run in runs.items()}
  repeats = 2 if _SMOKE.value else _REPEATS.value
  found = step_times.in_turns(runs, repeats)
  seconds = {name: statistics.median(v) for name, v in found.items()}
  for name in names:
    clients = TOGETHER if name == 'vmapped' else 1
    each = seconds[name] / steps / clients
    updates = last[name]
    if clients > 1:
      updates = jax.tree.map(lambda v: v[0], updates)
    worst = max(
      float(jnp.abs(a - b).max())
      for a, b in zip(
        jax.tree.leaves(updates),
        jax.tree.leaves(last[names[0]]),
        strict=True,
      )
    )
    common.emit(
      {
        'benchmark': 'conv_lowering',
        'form': name,
        'channels': _CHANNELS.value,
        'batch': batch,
        'clients': clients,
        'median_ms_per_step': 1e3 * each,
        'min_ms_per_step': 1e3 * min(found[name]) / steps / clients,
        'gflops': flops / each / 1e9,
        'share_of_product': (flops / each)
        / (product.flops / seconds['product']),
        'largest_difference': worst,
      }
    )


if __name__ == '__main__':
  command.launch(main)
