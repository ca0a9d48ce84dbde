"""How long and how much memory dealing a bank to many clients takes.

    python -m benchmarks.build_world [clients] [windows per client]

Host only: nothing is compiled. Prints seconds and the process's peak memory.
"""

import resource
import sys
import time

import numpy as np

from relief_jax import config, dealing, partition


def main(clients: int = 100_000, mean: int = 20) -> None:
  """Deals a synthetic bank in every way."""
  base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(f'after imports: {base:.0f} MiB')
  for kind, skew in (
    ('contiguous', 0.0),
    ('subject', 0.0),
    ('subject', 0.5),
    ('dirichlet', 0.0),
  ):
    c = config.default()
    c.dataset, c.clients, c.reuse = 'synthetic', clients, mean
    c.data.width = c.data.stride = 32
    c.synthetic.windows_per_class = 60
    c.partition, c.quantity_skew, c.alpha = kind, skew, 100.0
    cpu, started = time.process_time(), time.perf_counter()
    found = dealing.deal(c, None)
    rows, samples = partition.pad_rows(found.parts)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
      f'{kind}, skew {skew}: {seconds:.1f} s ({cpu:.1f} s of CPU), rows '
      f'{rows.shape} {rows.nbytes / 2**20:.0f} MiB, mean '
      f'{np.mean(samples):.1f} windows, peak so far {peak:.0f} MiB'
    )


if __name__ == '__main__':
  main(*map(int, sys.argv[1:]))
