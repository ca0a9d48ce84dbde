"""Places experts server by server, each by dynamic programming.

Experts that some token needs together are one group (in a mixture of several
layers, those of a layer). Given what the other servers keep, a group's table
f[b] is the most that its best subset of at most b units saves; all subsets are
tried. Tables of the groups are combined by (max, +) convolutions. That is exact
for one server, whatever K. Server after server, with K = 1, the whole saves at
least half of the optimum (Fisher, Nemhauser and Wolsey, 1978: best responses
to a submodular function); with K of 2 or more no bound is known to us. The
decomposition is in the manner of https://arxiv.org/abs/2507.06567; groups and
tables are **ours**.
"""

from typing import NamedTuple

import numpy as np

from relief_jax.caching.convolution import max_convolution
from relief_jax.caching.problem import (
  Array,
  Problem,
  saving,
  seconds,
  waits,
)
from relief_jax.errors import InputError

LIMIT = 12  # experts of a group


class Table(NamedTuple):
  """Holds what a group saves on one server.

  Attributes:
    value: [C + 1] seconds, of at most b units.
    subset: [C + 1] int, which subset that is.
    experts: [n] numbers of the group's experts; bit i of a subset is the i-th.
  """

  value: Array
  subset: Array
  experts: Array


def groups(problem: Problem) -> list[Array]:
  """Finds the experts that are needed together, directly or by others.

  Raises:
    InputError: a group of which not all subsets can be tried.
  """
  group = np.arange(problem.experts)
  asked = problem.rate.sum(0) > 0
  for row in problem.sets[asked]:
    those = group[row[row >= 0]]
    if len(those):
      group[np.isin(group, those)] = those.min()
  needed = np.unique(problem.sets[asked])
  needed = needed[needed >= 0]
  found = [needed[group[needed] == g] for g in np.unique(group[needed])]
  most = max(map(len, found), default=0)
  if most > LIMIT:
    raise InputError(
      f'{most} experts that tokens need together',
      f'at most {LIMIT}, of which all subsets are tried',
      'take caching.greedy, which has no bound for K of 2 or more',
    )
  return found


def table(problem: Problem, server: int, wait: Array, those: Array) -> Table:
  """Computes the table of one group on one server.

  Args:
    problem: checked.
    server: its number.
    wait: [U, E] seconds, by what the other servers keep.
    those: [n] experts of the group.
  """
  subsets = (np.arange(2 ** len(those))[:, None] >> np.arange(len(those))) & 1
  inside = np.isin(problem.sets, those).any(1)
  place = np.searchsorted(those, np.where(problem.sets >= 0, problem.sets, 0))
  local = np.where(problem.sets >= 0, place, -1)[inside]
  value = np.zeros(len(subsets))
  for near, own, rate in zip(
    problem.near[:, server], wait, problem.rate[:, inside], strict=True
  ):
    some = rate > 0
    if not some.any() or np.isinf(near):
      continue
    each = np.where(subsets == 1, np.minimum(own[those], near), own[those])
    after = waits(local[some], each)
    value += (waits(local[some], own[those]) - after) @ rate[some]
  size = subsets @ problem.size[those]
  capacity = int(problem.capacity[server])
  best = np.full(capacity + 1, -1.0)
  which = np.zeros(capacity + 1, int)
  for i in np.argsort(-value, kind='stable'):
    if size[i] <= capacity and value[i] > best[size[i]]:
      best[size[i]], which[size[i]] = value[i], i
  for b in range(1, capacity + 1):
    if best[b] <= best[b - 1]:
      best[b], which[b] = best[b - 1], which[b - 1]
  return Table(best, which, those)


def best_response(problem: Problem, server: int, placed: Array) -> Array:
  """Finds what one server keeps best, given the others, [E] bool.

  Args:
    problem: checked.
    server: its number.
    placed: [S, E] bool; its own row is not looked at.
  """
  others = placed.copy()
  others[server] = False
  wait = seconds(problem, others)
  tables = [table(problem, server, wait, g) for g in groups(problem)]
  total, places = np.zeros(int(problem.capacity[server]) + 1), []
  for one in tables:
    total, place = max_convolution(total, one.value)
    places.append(place)
  kept, left = np.zeros(problem.experts, bool), len(total) - 1
  for one, place in zip(tables[::-1], places[::-1], strict=True):
    subset = one.subset[left - place[left]]
    kept[one.experts[(subset >> np.arange(len(one.experts))) & 1 == 1]] = True
    left = place[left]
  return kept


def successive(problem: Problem, passes: int = 1) -> Array:
  """Places experts server by server, [S, E] bool.

  Args:
    problem: checked.
    passes: over the servers; from the second on each chooses anew, as long as
      that saves more.

  Raises:
    InputError: groups that are too large.
  """
  placed = np.zeros((problem.servers, problem.experts), bool)
  before = 0.0
  for _ in range(passes):
    for server in range(problem.servers):
      placed[server] = best_response(problem, server, placed)
    now = saving(problem, placed)
    if now <= before * (1 + 1e-12):
      break
    before = now
  return placed
