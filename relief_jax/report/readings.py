"""Reads scores and costs off a run's evaluations.

Between two of them by linear interpolation, so that what is compared does not
depend on how often a run was evaluated. **Ours.**
"""

import math
from typing import TypeAlias

import numpy as np
import pandas as pd

from relief_jax.scoring import metrics

# A run: rounds x metrics, of `frame.histories`.
History: TypeAlias = pd.DataFrame


class Ended(float):
  """Holds the last score of a run that was over before the cost asked for."""


def curve(run: History, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
  """Takes two fields of the evaluations that have both.

  Args:
    run: finished.
    x: a field that never falls, such as round.
    y: another.
  """
  run = run.assign(round=run.index)
  if not {x, y} <= set(run):
    return np.zeros(0), np.zeros(0)
  at, value = run[[x, y]].dropna().to_numpy(float).T
  return at, value


def cost_at(run: History, cost: str, rounds: int) -> float | None:
  """Finds what a run has spent after some rounds.

  Args:
    run: finished.
    cost: sim_seconds or joules.
    rounds: between evaluations, too.

  Returns:
    Seconds or joules; None where the run has fewer rounds or no such cost.
  """
  at, spent = curve(run, 'round', cost)
  if not len(at) or not at[0] <= rounds <= at[-1]:
    return None
  return float(np.interp(rounds, at, spent))


def score_at(run: History, cost: str, spent: float, score: str) -> float | None:
  """Finds the score of a run when it has spent so much.

  Args:
    run: finished.
    cost: sim_seconds or joules.
    spent: seconds or joules.
    score: its field.

  Returns:
    The score; where the run was over before, its last one, `Ended`: the model
    then at hand could be used, and what more rounds would have brought is not
    known. None where the run has no such cost.
  """
  at, values = curve(run, cost, score)
  if not len(at) or spent < at[0]:
    return None
  if spent > at[-1] and not math.isclose(spent, at[-1], rel_tol=1e-9):
    return Ended(values[-1])
  return float(np.interp(spent, at, values))


def to_target(run: History, cost: str) -> float | None:
  """Finds what a run has spent when its score first crosses the target.

  `target_f1` of an F1, `target` of another main metric.

  Args:
    run: finished.
    cost: round, sim_seconds or joules.

  Returns:
    Rounds, seconds or joules; None where it never does.
  """
  metric = next((m for m in metrics.MAIN.values() if m.name in run), metrics.F1)
  target = last(run, metrics.target_key(metric))
  at, score = curve(run, cost, metric.name)
  if target is None or not metric.reached(score, target).any():
    return None
  first = int(metric.reached(score, target).argmax())
  if not first:
    return float(at[0])
  share = (target - score[first - 1]) / (score[first] - score[first - 1])
  return float(at[first - 1] + share * (at[first] - at[first - 1]))


def last(run: History, metric: str) -> float | None:
  """Takes the last number of a metric; None where there is none."""
  found = run[metric].dropna() if metric in run else pd.Series()
  return float(found.iloc[-1]) if len(found) else None
