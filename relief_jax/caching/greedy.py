"""Places experts one after another, by what they save per unit of memory.

With one expert a token (K = 1) the saving is monotone and submodular. In one
cache the better of this greedy and the best single expert then saves at least
1 - e^(-1/2) = 0.39 of the optimum (Khuller, Moss and Naor, 1999; of submodular
functions Lin and Bilmes, 2010), and the best start of up to three experts,
finished greedily, at least 1 - 1/e (Sviridenko, 2004). In several caches with
experts of one size greedy saves at least half (Fisher, Nemhauser and Wolsey,
1978). With K of 2 or more nothing of that holds: experts that are worth
something only together look worthless one by one.
"""

import itertools

import numpy as np

from relief_jax.caching.problem import (
  Array,
  Problem,
  saving,
  seconds,
  total,
)
from relief_jax.errors import InputError


def greedy(problem: Problem) -> Array:
  """Places by density, or one expert alone where that saves more.

  Args:
    problem: checked.

  Returns:
    [S, E] bool.
  """
  nothing = np.zeros((problem.servers, problem.experts), bool)
  single, most = nothing, 0.0
  for s, e in np.ndindex(nothing.shape):
    if problem.size[e] <= problem.capacity[s]:
      alone = nothing.copy()
      alone[s, e] = True
      value = saving(problem, alone)
      if value > most:
        single, most = alone, value
  found = completed(problem, nothing)
  return found if saving(problem, found) >= most else single


def completed(problem: Problem, placed: Array) -> Array:
  """Adds experts by density while some of them save and fit, [S, E] bool.

  Args:
    problem: checked.
    placed: [S, E] bool, kept anyway.
  """
  placed = placed.copy()
  wait = seconds(problem, placed)
  before = total(problem, wait)
  while True:
    room = problem.capacity - placed @ problem.size
    best, density = None, 0.0
    for s, e in np.argwhere(~placed & (problem.size[None] <= room[:, None])):
      tried = wait.copy()
      tried[:, e] = np.minimum(wait[:, e], problem.near[:, s])
      gain = (before - total(problem, tried)) / problem.size[e]
      if gain > density * (1 + 1e-12):
        best, density = (s, e), gain
    if best is None:
      return placed
    s, e = best
    placed[s, e] = True
    wait[:, e] = np.minimum(wait[:, e], problem.near[:, s])
    before = total(problem, wait)


def enumerated(problem: Problem, start: int = 3) -> Array:
  """Places in one cache, from every start of few experts on.

  Args:
    problem: checked, of one server.
    start: most experts of a start.

  Returns:
    [1, E] bool.

  Raises:
    InputError: several servers.
  """
  if problem.servers != 1:
    raise InputError(
      f'{problem.servers} servers for a partial enumeration',
      'one cache, for which it has a guarantee',
      'take caching.successive or caching.greedy',
    )
  best, most = np.zeros((1, problem.experts), bool), 0.0
  for count in range(min(start, problem.experts) + 1):
    for those in itertools.combinations(range(problem.experts), count):
      placed = np.zeros((1, problem.experts), bool)
      placed[0, list(those)] = True
      if placed[0] @ problem.size > problem.capacity[0]:
        continue
      found = completed(problem, placed)
      value = saving(problem, found)
      if value > most:
        best, most = found, value
  return best
