"""What next-token perplexity do counts of pairs and triples give?

python examples/ngram.py [DATA_DIR]

A line per model for `--config.dataset=shakespeare` in windows of 64 characters,
or without DATA_DIR for the made-up words of `experts:words` in windows of 32,
in the split of the config `text`: counts over all training texts together,
add-one for pairs, and for triples mixed with the pairs in proportion to what
was counted, (n + c p) / (N + c) with c = 5 (a Dirichlet prior). The perplexity
is that of all held-out tokens that are predicted. It is what a model must be
better than to have learnt more than which character follows which.
"""

import pathlib
import sys

import numpy as np

from relief_jax import config as config_lib
from relief_jax import datasets

_PRIOR = 5.0


def counted(x, y, size):
  """Counts pairs and triples, [V, V] and [V + 1, V, V] (V: no character)."""
  before = np.pad(x, ((0, 0), (1, 0)), constant_values=size)[:, :-1]
  there = (x >= 0) & (y >= 0)
  before = np.where(before < 0, size, before)
  pairs = np.zeros((size, size))
  triples = np.zeros((size + 1, size, size))
  np.add.at(pairs, (x[there], y[there]), 1)
  np.add.at(triples, (before[there], x[there], y[there]), 1)
  return pairs, triples, (before[there], x[there], y[there])


def main(folder: str | None) -> None:
  """Prints perplexities of held-out text."""
  c = config_lib.default('fedavg')
  c.dataset, c.data.width = 'shakespeare', 64
  if not folder:
    c.dataset, c.data.width, c.synthetic.subjects = 'synthetic_text', 32, 24
  windows, _ = datasets.load(c, pathlib.Path(folder) if folder else None)
  ((_, x),) = windows.x.items()
  size, test = len(windows.classes), windows.official_test
  pairs, triples, _ = counted(x[~test], windows.y[~test], size)
  *_, at = counted(x[test], windows.y[test], size)
  by_pair = (pairs + 1) / (pairs.sum(-1, keepdims=True) + size)
  total = triples.sum(-1, keepdims=True)
  by_triple = (triples + _PRIOR * by_pair[None]) / (total + _PRIOR)
  found = {'pairs': by_pair[at[1], at[2]], 'triples': by_triple[at]}
  for name, p in found.items():
    print(f'{name}: perplexity {np.exp(-np.log(p).mean()):.2f}, {size} tokens')


if __name__ == '__main__':
  main(sys.argv[1] if len(sys.argv) > 1 else None)
