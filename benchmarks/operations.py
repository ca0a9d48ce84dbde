"""Where does a round's time go, by kind of operation?

python -m benchmarks.operations [--workload=sensor] [--methods=cohort_mean]
  [--top=0] [--smoke]

XLA's own trace of one round of `round_throughput` on one device: seconds of
every operation, summed by what it is. One JSON line per workload and method;
`--top=20` adds the twenty longest operations. Branches and loops are left out,
since what is in them is there by itself. The kinds are read off the compiled
program: a fusion counts as a product if it holds one, as columns if it gathers,
as zeros if it does nothing but fill an array.
"""

from absl import flags

from benchmarks import common, round_throughput, tracing
from relief_jax import simulate
from relief_jax.cli import command

_TOP = flags.DEFINE_integer('top', 0, 'longest operations to list')


def main(argv):
  """Traces every workload and method and prints a JSON line each."""
  del argv
  values = flags.FLAGS  # those of round_throughput
  values.devices = 1
  simulate.set_devices(1)
  for workload in values.workload:
    for method in values.methods:
      one = round_throughput.make_round(workload, method)
      compiled = one.step.lower(*one.args).compile()
      found = tracing.profile(
        compiled, lambda run=compiled, one=one: run(*one.args), _TOP.value
      )
      common.emit({'benchmark': 'operations', **one.facts, **found})


if __name__ == '__main__':
  command.launch(main)
