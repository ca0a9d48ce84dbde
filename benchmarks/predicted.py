"""How well does one number per machine predict the time of other models?

python -m benchmarks.predicted [--steps=10] [--repeats=5] [--models=0,3] \
    [--processor_time] [--smoke]

Profiles this machine as `relief profile-device` does, on the default model,
and then times a training step of each of eight models, all parameters that
train. One JSON line per model: the seconds that `costs.py` predicts from its
FLOPs and the fitted speed, the measured ones, and their ratio; then one line
with the geometric mean of the ratios, the largest factor between the two, and
Spearman's rank correlation. Transfers are not in it: links cannot be measured
here.

Run it on an idle machine. On a busy one `--processor_time` counts the seconds
that the processor worked for this process, in the profile and in the models
alike: of one core, with `XLA_FLAGS=--xla_cpu_multi_thread_eigen=false`.
"""

import math
import statistics
import time

import jax
import scipy.stats
from absl import flags

from benchmarks import common
from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.cli import command
from relief_jax.runs import step_times

# Keys of the config by model. Windows have 3 sensors of 3 channels, 125 samples
# long, in batches of 32, unless told otherwise.
MODELS = {
  'cnn, one sensor': {'synthetic.modalities': 1},
  'cnn, small': {'model.filters': (4, 8), 'model.hidden': 16},
  'cnn, default': {},
  'cnn, large': {'model.filters': (64, 128), 'model.hidden': 256},
  'cnn, six sensors': {'synthetic.modalities': 6},
  'adapters on a frozen cnn': {
    'backbone': 'lora',
    'model.cache_features': False,
  },
  'transformer, tiny': {
    'backbone': 'transformer',
    'model.transformer.preset': 'tiny',
  },
  'transformer, sensor': {
    'backbone': 'transformer',
    'model.transformer.preset': 'sensor',
  },
}
_ALL = 'all'  # of `step_times.cases`

_STEPS = flags.DEFINE_integer('steps', 10, 'in a timing', lower_bound=1)
_REPEATS = flags.DEFINE_integer('repeats', 5, 'timings', lower_bound=1)
_MODELS = flags.DEFINE_list('models', None, 'numbers from 0; else all')
_PROCESSOR = flags.DEFINE_bool(
  'processor_time', False, 'seconds of the processor, not of the clock'
)
_SMOKE = flags.DEFINE_bool('smoke', False, 'two tiny models, in seconds')


def config(keys: dict):
  """Builds the config of a model."""
  c = config_lib.default()
  c.update_from_flattened_dict(keys)
  if _SMOKE.value:
    c.data.width, c.batch = 32, 4
    c.model.filters, c.model.hidden = (4, 8), 16
  return c


def processor(steps: int, repeats: int) -> step_times.Timer:
  """Builds a timer of a step: seconds that the processor worked, the median.

  Args:
    steps: in a call of what is timed.
    repeats: timed calls after a first one, which compiles.
  """

  def one(call):
    started = time.process_time()
    jax.block_until_ready(call())
    return (time.process_time() - started) / steps

  def timer(calls):
    return {
      name: statistics.median([one(call) for _ in range(repeats + 1)][1:])
      for name, call in calls.items()
    }

  return timer


def summary(ratios: list[float], lines: list[dict]) -> dict:
  """Computes the statistics over models.

  Args:
    ratios: predicted over measured, of each.
    lines: with `predicted_seconds` and `measured_seconds`.
  """
  logs = [math.log(ratio) for ratio in ratios]
  sides = [
    [line[f'{side}_seconds'] for line in lines]
    for side in ('predicted', 'measured')
  ]
  return {
    'models': len(lines),
    'geometric_mean_ratio': math.exp(sum(logs) / len(logs)),
    'largest_factor': math.exp(max(map(abs, logs))),
    'spearman': float(scipy.stats.spearmanr(*sides).statistic),
  }


def main(argv):
  """Profiles the machine, then times model after model."""
  del argv
  simulate.set_devices(1)
  steps = 1 if _SMOKE.value else _STEPS.value
  repeats = 1 if _SMOKE.value else _REPEATS.value
  timer = (processor if _PROCESSOR.value else step_times.clock)(steps, repeats)
  points = step_times.measure(config({}), steps, timer)
  fit = step_times.fit(points)
  names = list(MODELS)[: 2 if _SMOKE.value else None]
  if _MODELS.value:
    names = [list(MODELS)[int(number)] for number in _MODELS.value]
  lines, ratios = [], []
  for name in names:
    (point,) = step_times.measure(config(MODELS[name]), steps, timer, (_ALL,))
    predicted = sum(point.flops) / fit.speed
    ratios.append(predicted / point.seconds)
    lines.append(
      {
        'benchmark': 'predicted',
        'model': name,
        'flops': sum(point.flops),
        'predicted_seconds': predicted,
        'measured_seconds': point.seconds,
        'ratio': ratios[-1],
      }
    )
    common.emit(lines[-1])
  common.emit(
    {
      'benchmark': 'predicted',
      'speed': fit.speed,
      'fit_error': fit.error,
      **summary(ratios, lines),
    }
  )


if __name__ == '__main__':
  command.launch(main)
