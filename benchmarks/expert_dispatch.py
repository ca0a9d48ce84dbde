"""How are windows best given to the experts of a mixture?

python -m benchmarks.expert_dispatch [--experts=8] [--hidden=128] [--batch=32]
  [--repeats=15] [--smoke]

Training steps of the mixture alone (k = 2, experts twice as wide inside),
forward, backward and SGD in a scan, on one device. The forms take turns, so
that a busy minute of the machine is shared by all; one JSON line per form.

- `loop`: all experts on all windows, one after another
  (`experts.added`), as in layouts of several clients.
- `product`: the same as two large products.
- `sorted`: windows sorted by expert, `lax.ragged_dot`.
- `branches`: as one client at a time is trained (the same with what
  trains), all experts on the device.
- `two`: the same with two experts on the device.

All but the last agree: the largest difference of their updates is in the line.
"""

import statistics

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import common
from relief_jax import simulate
from relief_jax.cli import command
from relief_jax.engine import ambient
from relief_jax.models import encoders, experts, layers
from relief_jax.models.mixture import Mixture
from relief_jax.runs import step_times
from relief_jax.task import Skip

_EXPERTS = flags.DEFINE_integer('experts', 8, 'of the mixture')
_HIDDEN = flags.DEFINE_integer('hidden', 128, 'units')
_BATCH = flags.DEFINE_integer('batch', 32, 'windows of a step')
_REPEATS = flags.DEFINE_integer('repeats', 15, 'timed turns')
_SMOKE = flags.DEFINE_bool('smoke', False, 'a tiny case, in seconds')

TOP = 2


def _stacked(params):
  return jax.tree.map(lambda *v: jnp.stack(v), *params['expert'])


def _product(params, x, weight):
  each, count = _stacked(params), weight.shape[1]
  up = each['up'].swapaxes(0, 1).reshape(x.shape[1], -1)
  inside = jax.nn.relu(layers.bias(x @ up, each['b'].ravel()))
  inside = inside.reshape(len(x), count, -1) * weight[:, :, None]
  down = each['down'].reshape(-1, x.shape[1])
  return x + inside.reshape(len(x), -1) @ down + weight @ each['c']


def _sorted(params, x, weight):
  each = _stacked(params)
  share, place = jax.lax.top_k(weight, TOP)
  order = jnp.argsort(place.ravel())
  expert = place.ravel()[order]
  count = jnp.bincount(expert, length=weight.shape[1])
  rows = jnp.repeat(x, TOP, 0)[order]
  inside = jax.lax.ragged_dot(rows, each['up'], count) + each['b'][expert]
  out = jax.lax.ragged_dot(jax.nn.relu(inside), each['down'], count)
  out = (out + each['c'][expert]) * share.ravel()[order][:, None]
  back = jnp.zeros_like(out).at[order].set(out)
  return x + back.reshape(len(x), TOP, -1).sum(1)


def make_steps(spec, form, params, x, steps: int):
  """Compiles () -> params after some SGD steps."""

  def loss(params):
    p = experts.probabilities(spec, params['gate'], x, jnp.ones(1, bool))
    return jnp.square(form(params, x, experts.weigh(p, TOP))).mean()

  def step(params, _):
    grads = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), None

  def run(params):
    return jax.lax.scan(step, params, length=steps)[0]

  compiled = jax.jit(run).lower(params).compile()
  return lambda: compiled(params)


def main(argv):
  """Times all forms in turns."""
  del argv
  simulate.set_devices(1)
  count, hidden, batch, steps = _EXPERTS.value, _HIDDEN.value, _BATCH.value, 32
  if _SMOKE.value:
    count, hidden, batch, steps = 3, 8, 4, 2
  spec = encoders.Spec(
    ('acc',),
    (3,),
    128,
    10,
    hidden=hidden,
    fusion='experts',
    mixture=Mixture(count, TOP),
  )
  number = encoders.number_groups(spec, encoders_train=True)
  own = experts.layer(spec, number)
  skip = Skip(jnp.ones(len(number.names), bool))
  params = experts.init(ambient.key(0), spec)
  x = jax.nn.relu(jax.random.normal(ambient.key(1), (batch, hidden)))

  def loop(params, x, weight):
    return experts.added(own, params, x, x, weight)

  def branches(params, x, weight):
    return experts.added(own, params, x, x, weight, skip)

  forms = {
    'loop': loop,
    'product': _product,
    'sorted': _sorted,
    'branches': branches,
    'two': branches,
  }
  few = experts.within(params, jnp.arange(count) < 2)
  runs = {
    name: make_steps(spec, form, few if name == 'two' else params, x, steps)
    for name, form in forms.items()
  }
  last = {name: run() for name, run in runs.items()}
  found = step_times.in_turns(runs, 2 if _SMOKE.value else _REPEATS.value)
  for name in forms:
    pairs = zip(
      jax.tree.leaves(last[name]), jax.tree.leaves(last['loop']), strict=True
    )
    worst = max(float(jnp.abs(a - b).max()) for a, b in pairs)
    common.emit(
      {
        'benchmark': 'expert_dispatch',
        'form': name,
        'experts': count,
        'hidden': hidden,
        'batch': batch,
        'median_ms_per_step': 1e3 * statistics.median(found[name]) / steps,
        'min_ms_per_step': 1e3 * min(found[name]) / steps,
        'largest_difference': 0.0 if name == 'two' else worst,
      }
    )


if __name__ == '__main__':
  command.launch(main)
