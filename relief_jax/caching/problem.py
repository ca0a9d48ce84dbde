"""Describes users, servers and experts, and what a placement saves.

Letters: U users, S servers, E experts of all layers, R sets of experts that a
token may need at once in one layer, K experts in a set.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from relief_jax.errors import InputError

Array = np.ndarray


class Problem(NamedTuple):
  """Holds a problem of caching.

  A token waits for the slowest of its experts; an expert comes from the nearest
  server in reach that keeps it, or from afar.

  Attributes:
    sets: [R, K] int, numbers of experts needed together; -1 for fewer than K.
    rate: [U, R] how often a user's tokens need them.
    near: [U, S] seconds from a server; infinite out of reach.
    far: [U] seconds from afar.
    size: [E] int, units of memory of an expert.
    capacity: [S] int, units of a server.
  """

  sets: Array
  rate: Array
  near: Array
  far: Array
  size: Array
  capacity: Array

  @property
  def experts(self) -> int:
    """E."""
    return len(self.size)

  @property
  def servers(self) -> int:
    """S."""
    return len(self.capacity)

  def checked(self) -> 'Problem':
    """Gives the same as arrays.

    Raises:
      InputError: numbers that mean nothing, or shapes that do not fit.
    """
    kinds = dict(sets=int, size=int, capacity=int)
    for name in ('sets', 'size', 'capacity'):
      value = np.asarray(getattr(self, name))
      if not np.array_equal(value, np.round(value)):
        raise InputError(
          f'{name} of {value.ravel()[:3].tolist()}, ...',
          'whole numbers: sizes and capacities are in units of memory',
          'divide bytes by a unit and round sizes up, capacities down',
        )
    found = Problem(
      *(
        np.asarray(value, kinds.get(name, float))
        for name, value in zip(self._fields, self, strict=True)
      )
    )
    if found.sets.ndim != 2 or not len(found.sets):
      raise InputError(
        f'sets of shape {list(found.sets.shape)}',
        '[R, K], a row of experts per set, at least one',
        'pad shorter sets with -1',
      )
    users, servers = len(found.far), len(found.capacity)
    for name, shape in (
      ('rate', (users, len(found.sets))),
      ('near', (users, servers)),
    ):
      value = getattr(found, name)
      if value.shape != shape:
        raise InputError(
          f'{name} of shape {list(value.shape)}',
          f'{list(shape)}, for {users} users, {servers} servers and '
          f'{len(found.sets)} sets',
          'give a row per user',
        )
    if found.sets.max() >= found.experts or found.sets.min() < -1:
      raise InputError(
        f'a set with expert {found.sets.max()}',
        f'numbers from 0 to {found.experts - 1}, or -1 for none',
        'give a size for each expert',
      )
    bad = (
      ('rate', (found.rate < 0) | ~np.isfinite(found.rate)),
      ('near', ~(found.near >= 0)),
      ('far', (found.far < 0) | ~np.isfinite(found.far)),
      ('size', found.size < 1),
      ('capacity', found.capacity < 0),
    )
    for name, wrong in bad:
      if wrong.any():
        raise InputError(
          f'{name} with {getattr(found, name)[wrong][0]}',
          'rates and seconds of 0 or more, sizes of 1 or more, no NaN',
          f'mend {name}; only near may be infinite',
        )
    if not found.rate.any():
      raise InputError(
        'rates that are all 0', 'a user who asks for something', 'give rates'
      )
    return found


def of_routes(routes: Sequence[Array], near, far, size, capacity) -> Problem:
  """Builds a problem from traces of routing.

  Args:
    routes: [U] of [n, E] bool, the experts of each token of a user in one
      layer; of several layers a row each.
    near: as in `Problem`.
    far: as in `Problem`.
    size: as in `Problem`.
    capacity: as in `Problem`.

  Raises:
    InputError: as `Problem.checked`.
  """
  experts = len(np.asarray(size))
  for route in routes:
    if np.ndim(route) != 2 or np.shape(route)[1] != experts:
      raise InputError(
        f'routes of shape {list(np.shape(route))}',
        f'[tokens, {experts}], a mark for each expert',
        'give a size for each expert, and marks in the same order',
      )
  every = np.concatenate([np.asarray(r, bool) for r in routes])
  kinds, place = np.unique(every, axis=0, return_inverse=True)
  user = np.repeat(np.arange(len(routes)), [len(r) for r in routes])
  rate = np.zeros((len(routes), len(kinds)))
  np.add.at(rate, (user, np.ravel(place)), 1.0)
  most = max(int(kinds.sum(1).max(initial=0)), 1)
  sets = np.full((len(kinds), most), -1)
  for row, kind in zip(sets, kinds, strict=True):
    those = np.flatnonzero(kind)
    row[: len(those)] = those
  return Problem(sets, rate, near, far, size, capacity).checked()


def seconds(problem: Problem, placed: Array) -> Array:
  """Computes a user's wait for each expert, [U, E].

  Args:
    problem: checked.
    placed: [S, E] bool.
  """
  found = np.repeat(problem.far[:, None], problem.experts, 1)
  for near, kept in zip(problem.near.T, placed, strict=True):
    found = np.minimum(found, np.where(kept[None], near[:, None], np.inf))
  return found


def waits(sets: Array, wait: Array) -> Array:
  """Computes the wait for sets, that for their slowest expert, [..., R].

  Args:
    sets: [R, K].
    wait: [..., E].
  """
  return np.where(sets >= 0, wait[..., sets], 0.0).max(-1)


def total(problem: Problem, wait: Array) -> float:
  """Adds up the waits of all users, given those for experts [U, E]."""
  return float((problem.rate * waits(problem.sets, wait)).sum())


def latency(problem: Problem, placed: Array) -> float:
  """Computes the mean wait of a token in a layer, in seconds.

  Args:
    problem: checked.
    placed: [S, E] bool, what servers keep.
  """
  return total(problem, seconds(problem, placed)) / problem.rate.sum()


def saving(problem: Problem, placed: Array) -> float:
  """Computes what a placement takes off the waits of all tokens, in seconds."""
  nothing = np.zeros((problem.servers, problem.experts), bool)
  before, after = (
    total(problem, seconds(problem, p)) for p in (nothing, placed)
  )
  return before - after
