"""Compares solvers over sizes of the caches."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from relief_jax.caching.dynamic import successive
from relief_jax.caching.exhaustive import exhaustive
from relief_jax.caching.greedy import enumerated, greedy
from relief_jax.caching.problem import Array, Problem, latency
from relief_jax.errors import InputError

SOLVERS: dict[str, Callable[[Problem], Array]] = {
  'greedy': greedy,
  'enumerated': enumerated,
  'successive': successive,
  'exhaustive': exhaustive,
}


def curve(
  problem: Problem,
  capacities: Sequence[int],
  solvers: Mapping[str, Callable[[Problem], Array]] = SOLVERS,
) -> dict[str, list[float]]:
  """Computes the wait of a token against the size of every server's cache.

  Args:
    problem: checked; its capacities are replaced.
    capacities: units of each server, one problem after another.
    solvers: {name: problem -> [S, E] bool}.

  Returns:
    {name: seconds for each capacity}; NaN where a solver refuses.
  """
  found: dict[str, list[float]] = {name: [] for name in solvers}
  for capacity in capacities:
    size = np.full(problem.servers, capacity)
    one = problem._replace(capacity=size).checked()
    for name, solve in solvers.items():
      try:
        value = latency(one, solve(one))
      except InputError:
        value = float('nan')
      found[name].append(value)
  return found
