"""Statistics over runs: intervals, significance, fairness.

A run has a seed and a fold. Folds test different persons, seeds of a fold the
same ones: where a label has several folds, a fold counts once, as the mean over
its seeds; counting these as if they were more folds would feign certainty.
Folds share training persons, so intervals over them are too narrow. **Ours.**
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

# From so many persons or seeds on an interval is drawn.
ENOUGH = 4
_DRAWS = 2000


class Cell(NamedTuple):
  """Holds a number of a table.

  Attributes:
    mean: over the units that have one, or the median where its column says so;
      NaN where none has.
    half: half the interval; NaN with fewer than two units and of a median.
    number: runs that have one.
    total: runs in all.
    ended: runs whose number is `readings.Ended`.
  """

  mean: float
  half: float
  number: int
  total: int
  ended: int = 0


def units(values: Any, folds: Sequence[int] | np.ndarray) -> np.ndarray:
  """Averages the seeds of every fold where there are several folds.

  >>> units([1.0, 3.0, 5.0], [0, 0, 1]), units([1.0, 3.0], [0, 0])
  (array([2., 5.]), array([1., 3.]))

  Args:
    values: of the runs, [runs, ...].
    folds: [runs].
  """
  values, folds = np.asarray(values, float), np.asarray(folds)
  if len(set(folds.tolist())) < 2:
    return values
  return np.stack([values[folds == fold].mean(0) for fold in np.unique(folds)])


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
  """Computes the mean and half the 95 % t-interval, NaN where there is none.

  >>> mean, half = interval([1.0, 2.0, 3.0])
  >>> mean, round(half, 3)
  (2.0, 2.484)
  """
  count = len(values)
  if not count:
    return math.nan, math.nan
  half = math.nan
  if count > 1:
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(scipy.stats.t.ppf(0.975, count - 1)) * error
  return float(np.mean(values)), half


def bootstrap(
  values: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
  """Computes the 95 % percentile interval of the mean, by resampling.

  Persons (folds) are drawn with replacement, and within each its seeds; of a
  single fold the seeds alone. The interval never leaves the range of the
  values.

  Args:
    values: [runs, ...].
    folds: [runs].

  Returns:
    Lower and upper bounds, [...]; None below `ENOUGH` persons or seeds.
  """
  several = len(set(folds.tolist())) > 1
  unit = np.unique(folds if several else np.arange(len(values)), False, True)[1]
  count = unit.max() + 1 if len(unit) else 0
  if count < ENOUGH:
    return None
  rng = np.random.default_rng(0)
  drawn = rng.multinomial(count, np.full(count, 1 / count), _DRAWS)
  weight = np.zeros((_DRAWS, len(values)))
  for u in range(count):
    own = np.flatnonzero(unit == u)
    equal = np.full(len(own), 1 / len(own))
    weight[:, own] = rng.multinomial(drawn[:, u] * len(own), equal) / len(own)
  means = np.tensordot(weight / count, values, 1)
  low, high = np.quantile(means, (0.025, 0.975), axis=0)
  return low, high


def told(intervals: Sequence[bool], numbers: str) -> str:
  """Says for a caption what is drawn around the means.

  Args:
    intervals: of every label, whether it has one.
    numbers: what a mean is over, 'seeds' or 'folds'.
  """
  parts = []
  if any(intervals):
    parts.append(
      'Intervals: 95 % of the mean, bootstrap over '
      + ('persons (folds) and their seeds' if numbers == 'folds' else 'seeds')
      + f', {_DRAWS:,} draws.'
    )
  if not all(intervals):
    parts.append(
      f'Below {ENOUGH} {numbers} no interval is drawn: every run is shown, '
      'thin, beside the mean.'
    )
  return ' '.join(parts)


def paired_p(
  own: Mapping[tuple[int, int], float], base: Mapping[tuple[int, int], float]
) -> float:
  """Computes p of the paired t-test, two-sided; NaN with under two pairs.

  Args:
    own: value of each run, by (fold, seed).
    base: of the baseline.
  """
  pairs = [pair for pair in own if pair in base]
  differences = units(
    [own[pair] - base[pair] for pair in pairs], [fold for fold, _ in pairs]
  )
  if len(differences) < 2:
    return math.nan
  if np.ptp(differences) < 1e-12:  # the same difference everywhere
    return 0.0 if abs(differences[0]) > 1e-12 else 1.0
  return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)


def holm(values: Sequence[float]) -> list[float]:
  """Corrects p-values for their number, after Holm; NaN stays.

  >>> [round(p, 3) for p in holm([0.01, 0.04, float('nan')])]
  [0.02, 0.04, nan]
  """
  found = list(values)
  order = sorted(
    (i for i, p in enumerate(values) if not math.isnan(p)),
    key=lambda i: values[i],
  )
  worst = 0.0
  for rank, i in enumerate(order):
    worst = max(worst, min(1.0, values[i] * (len(order) - rank)))
    found[i] = worst
  return found


def worst_tenth(values: np.ndarray, sign: int = 1) -> float:
  """Averages the worst tenth of the values, at least one.

  >>> worst_tenth(np.arange(20.0)), worst_tenth(np.arange(20.0), -1)
  (0.5, 18.5)

  Args:
    values: [n].
    sign: 1 where the largest is the best, else -1.
  """
  kept = np.sort(sign * values)[: max(1, round(len(values) / 10))]
  return sign * float(kept.mean())


def gini(values: np.ndarray) -> float:
  """Computes the Gini coefficient: 0 if all are equal, near 1 if one has all.

  >>> gini(np.array([1.0, 1.0])), gini(np.array([0.0, 1.0]))
  (0.0, 0.5)
  """
  values = np.sort(np.asarray(values, float))
  count, total = len(values), values.sum()
  if not total:
    return 0.0
  rank = np.arange(1, count + 1)
  return abs(float(((2 * rank - count - 1) * values).sum() / (count * total)))
