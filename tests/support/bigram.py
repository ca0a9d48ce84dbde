"""Counts pairs of tokens: what a model of texts has to beat."""

import numpy as np


def perplexity(windows, smoothing=0.1):
  """Of the pairs counted in the training windows, on the held-out ones."""
  size = len(windows.classes)
  x, y = windows.x['text'], windows.y
  test = windows.official_test

  def pairs(rows):
    before, after = x[rows].ravel(), y[rows].ravel()
    real = after >= 0
    return before[real], after[real]

  count = np.full((size, size), smoothing)
  np.add.at(count, pairs(~test), 1)
  chance = count / count.sum(1, keepdims=True)
  return float(np.exp(-np.log(chance[pairs(test)]).mean()))
