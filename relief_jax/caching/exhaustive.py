"""Tries all placements, as an oracle of small problems."""

import itertools

import numpy as np

from relief_jax.caching.problem import Array, Problem, seconds, total
from relief_jax.errors import InputError

LIMIT = 2**18  # placements


def exhaustive(problem: Problem) -> Array:
  """Finds the best of all placements, [S, E] bool.

  Args:
    problem: checked.

  Raises:
    InputError: too many of them.
  """
  count = 2.0 ** (problem.experts * problem.servers)
  if count > LIMIT:
    raise InputError(
      f'{problem.experts} experts and {problem.servers} servers to try all of',
      f'at most {LIMIT} placements',
      'take caching.successive',
    )
  every = np.array(
    list(itertools.product((False, True), repeat=problem.experts))
  )
  fits = [every[every @ problem.size <= c] for c in problem.capacity]
  best, least = np.zeros((problem.servers, problem.experts), bool), np.inf
  for rows in itertools.product(*fits):
    placed = np.array(rows)
    value = total(problem, seconds(problem, placed))
    if value < least - 1e-12 * abs(value):
      best, least = placed, value
  return best
