"""Computes metrics from the sums of an evaluation, by kind of targets."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from relief_jax.scoring import sums, targets
from relief_jax.scoring.metrics import Metric
from relief_jax.types import Array

# Names of metrics, and how each follows from sums.
Pairs: TypeAlias = list[tuple[str, Callable[[np.ndarray], Any]]]


def class_f1(confusion: np.ndarray) -> np.ndarray:
  """Computes F1 of every class, [..., C, C] -> [..., C]; 0 where it is absent.

  Args:
    confusion: counts, rows are true classes.
  """
  confusion = np.asarray(confusion, np.float64)
  return _f1(
    np.diagonal(confusion, axis1=-2, axis2=-1),
    confusion.sum(-2),
    confusion.sum(-1),
  )[0]


def macro_f1(confusion: np.ndarray) -> Any:
  """Averages F1 over the classes that occur in labels or predictions.

  The same as scikit-learn's `f1_score(average='macro', zero_division=0)`.

  Args:
    confusion: [..., C, C] counts, rows are true classes.

  Returns:
    [...] float64.

  >>> float(macro_f1(np.array([[2, 0], [1, 1]])))
  0.7333333333333334
  """
  confusion = np.asarray(confusion, np.float64)
  hits = np.diagonal(confusion, axis1=-2, axis2=-1)
  return _macro(hits, confusion.sum(-2), confusion.sum(-1))


def _f1(hits, predicted, true):
  """Computes F1 and presence of every class, [..., C] each."""
  total = np.asarray(predicted + true, np.float64)
  score = np.divide(2 * hits, total, out=np.zeros(total.shape), where=total > 0)
  return score, total > 0


def _macro(hits, predicted, true):
  score, present = _f1(hits, predicted, true)
  return score.sum(-1) / np.maximum(present.sum(-1), 1)


def _accuracy(confusion: np.ndarray) -> np.ndarray:
  """Computes the share of windows that are right, [..., C, C] -> [...]."""
  hits = np.trace(confusion, axis1=-2, axis2=-1)
  return hits / np.maximum(_windows(confusion), 1)


def _own_accuracy(own: np.ndarray) -> np.ndarray:
  """Computes the same of a device's own windows, [..., 3, C] -> [...]."""
  hits, _, true = np.moveaxis(own, -2, 0)
  return hits.sum(-1) / np.maximum(true.sum(-1), 1)


def _windows(confusion: np.ndarray) -> np.ndarray:
  return confusion.sum((-2, -1))


def _token_accuracy(found: np.ndarray) -> np.ndarray:
  """Computes the share of tokens that are right, [..., 3] -> [...]."""
  return found[..., 1] / np.maximum(found[..., 2], 1)


def _pairs(metric: Metric, *functions: Callable | None) -> Pairs:
  both = zip(metric.pair, functions, strict=False)
  return [(one.name, f) for one, f in both if f]


class Rule(NamedTuple):
  """Describes how metrics follow from sums (scoring/sums.py), [...] each.

  Attributes:
    total: of held-out windows, by person.
    main: sums -> the main metric.
    count: sums -> windows, tokens or numbers that they are of.
    own: sums of a device's own windows -> the main metric.
    own_count: likewise.
    beside: sums -> the second metric, None: there is none.
    own_beside: likewise, of a device's own windows.
    nats: sums -> summed loss; None: summed apart, or no loss of nats.
  """

  total: sums.Total
  main: Callable[[np.ndarray], Any]
  count: Callable[[np.ndarray], Any]
  own: Callable[[np.ndarray], Any]
  own_count: Callable[[np.ndarray], Any]
  beside: Callable[[np.ndarray], Any] | None = None
  own_beside: Callable[[np.ndarray], Any] | None = None
  nats: Callable[[np.ndarray], Any] | None = None

  def scores(self, metric: Metric) -> Pairs:
    """Pairs names with functions of sums: the metric, and what is beside it."""
    return _pairs(metric, self.main, self.beside)

  def own_scores(self, metric: Metric) -> Pairs:
    """Likewise, of sums of devices' own windows."""
    return _pairs(metric, self.own, self.own_beside)

  def persons(self, counts: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Adds up the sums of some persons, [..., Z, *sums] -> [..., *sums]."""
    axis = -self.total.axes - 1
    return np.compress(some, counts, axis).sum(axis)

  def personal(self, whole: Array | np.ndarray) -> bool:
    """Tells whether sums are of personal models, with one axis more."""
    return whole.ndim > 2 + self.total.axes


def _last(found: np.ndarray) -> np.ndarray:
  return found[..., -1]


RULES = {
  targets.CLASSES: Rule(
    sums.SUMS[targets.CLASSES].persons,
    macro_f1,
    _windows,
    lambda own: _macro(*np.moveaxis(own, -2, 0)),
    lambda own: own[..., 2, :].sum(-1),
    _accuracy,
    _own_accuracy,
  ),
  targets.TOKENS: Rule(
    sums.SUMS[targets.TOKENS].persons,
    sums.perplexity,
    _last,
    sums.perplexity,
    _last,
    _token_accuracy,
    _token_accuracy,
    lambda found: found[..., 0],
  ),
  targets.NUMBERS: Rule(
    sums.SUMS[targets.NUMBERS].persons, sums.rmse, _last, sums.rmse, _last
  ),
}
