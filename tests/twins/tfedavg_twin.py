"""T-FedAvg as a loop over clients, steps and weights."""

import numpy as np

from tests.twins import twin


def coded(k, value) -> bool:
  """Neither a bias nor of the first or the last layer."""
  return value.ndim > 1 and not k.startswith('head') and '/0/' not in k


def kept(mode, value):
  """Where |V| > D."""
  size = np.abs(value)
  if mode == 'twn':
    return size > 0.7 * size.mean()
  return size > 0.07 * size.sum() / (value.shape[0] * value.shape[1])


def quantised(mode, value):
  """s sign(V) where |V| > D, else 0."""
  mask = kept(mode, value)
  scale = np.abs(value[mask]).mean() if mask.any() else 0.0
  return scale * np.sign(value) * mask


def wire(k, value) -> float:
  """Bytes of a ternary code, four a number for what is not coded."""
  if not coded(k, value):
    return 4.0 * value.size
  return np.ceil(value.size / 4) + 4


class TernaryTwin(twin.Twin):
  """Trains through ternary weights and sends them."""

  def quantised(self, k, value):
    if self.setting.options.exempt == 'all' or not coded(k, value):
      return value
    return quantised(self.setting.options.mode, value)

  def seen(self, n, theta):
    del n
    return {k: self.quantised(k, v) for k, v in theta.items()}

  def backward(self, n, k, value, gradient):
    seen = self.quantised(k, value)
    if seen is value:
      return gradient
    mask = seen != 0
    scale, above = np.abs(seen).max(), gradient[seen > 0].sum()
    passed = np.where(mask, scale * gradient, gradient)
    return passed + above * np.sign(seen) / max(mask.sum(), 1)

  def finish(self, k, value):
    return self.quantised(k, value)

  def settle(self, k, value):
    found = self.quantised(k, value)
    off = np.linalg.norm(found - value)
    short = off < self.setting.options.lost * np.linalg.norm(value)
    return found if short else value

  def sent(self, n, k):
    del n
    return wire(k, self.params[k]) / 4
