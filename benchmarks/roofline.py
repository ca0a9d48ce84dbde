"""How close is a round to the machine's matrix products?

python -m benchmarks.roofline [--methods=cohort_mean] [--devices=0] [--smoke]

A round of the sensor workload (`round_throughput`) and products of two 1024
matrices, on all devices at once, take turns; the share is that of the same
turn. On a GPU take a larger product for its peak, `--size=8192`. Useful FLOPs
are what the simulated devices would compute (`costs.step_flops`): no masked
work, no zeros that fill rows, no sampling and no bookkeeping. `conv_lowering`
does the same for one encoder alone.
"""

import statistics

from absl import flags

from benchmarks import common, round_throughput
from relief_jax import simulate
from relief_jax.cli import command
from relief_jax.runs import step_times

_SIZE = flags.DEFINE_integer('size', 1024, 'of the matrices')


def main(argv):
  """Times every workload and method and prints a JSON line each."""
  del argv
  values = flags.FLAGS  # also those of round_throughput
  simulate.set_devices(values.devices)
  for name in values.workload:
    for method in values.methods:
      one = round_throughput.make_round(name, method)
      size = 64 if values.smoke else _SIZE.value
      product = common.matrix_product(size, one.layout)
      calls = {'round': one.call, 'product': product.call}
      found = step_times.in_turns(calls, values.repeats)
      rate = [one.flops / s for s in found['round']]
      peak = [product.flops / s for s in found['product']]
      shares = [a / b for a, b in zip(rate, peak, strict=True)]
      common.emit(
        {
          'benchmark': 'roofline',
          **one.facts,
          'clients_per_second': values.clients
          / statistics.median(found['round']),
          'useful_gflops': statistics.median(rate) / 1e9,
          'product_gflops': statistics.median(peak) / 1e9,
          'share': statistics.median(shares),
          'min_share': min(shares),
          'max_share': max(shares),
        }
      )


if __name__ == '__main__':
  command.launch(main)
