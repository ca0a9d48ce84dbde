"""Hypothesis strategies over fleets, masks, budgets and data sizes.

Shapes stay and values vary, so that hundreds of examples run in one compiled
program; a device without windows is padding, hence fleets of one to six
devices have one shape too.
"""

import collections
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from relief_jax import costs
from relief_jax.types import Population
from tests.support import tiny

CLIENTS, MODALITIES, WINDOWS = 6, 2, 9
# Calls of a property since pytest last asked, for `--contract`.
TRIED: collections.Counter = collections.Counter()


class Case(NamedTuple):
  """A world of fixed shapes.

  Attributes:
    owned: [N, M] bool, at least one sensor each.
    samples: [N] windows of each device, 0 is padding.
    share: [N] budget between the shared groups alone (0) and all (1).
    speed: [N] FLOP/s.
    link: [N] bit/s, both ways.
    watts: [N, 4].
    data: seed of the windows.
    seed: of the run.
    client_lr: step size.
  """

  owned: np.ndarray
  samples: np.ndarray
  share: np.ndarray
  speed: np.ndarray
  link: np.ndarray
  watts: np.ndarray
  data: int
  seed: int
  client_lr: float


def masks(*shape):
  """Boolean arrays of a shape."""
  size = int(np.prod(shape))
  rows = st.lists(st.booleans(), min_size=size, max_size=size)
  return rows.map(lambda row: np.array(row).reshape(shape))


def owners(clients: int = CLIENTS, modalities: int = MODALITIES):
  """[N, M] bool: every device has a sensor, and every sensor a device."""

  def mend(owned):
    owned[:, 0] |= ~owned.any(1)
    owned[0] |= ~owned.any(0)
    return owned

  return masks(clients, modalities).map(mend)


def numbers(low, high, *shape):
  """Float arrays of a shape, log-uniform where both ends are positive."""
  size = int(np.prod(shape))
  if low > 0:
    ends = np.log(low), np.log(high)
  else:
    ends = low, high
  one = st.floats(float(ends[0]), float(ends[1]))
  rows = st.lists(one, min_size=size, max_size=size)

  def finish(row):
    found = np.array(row).reshape(shape)
    return np.exp(found) if low > 0 else found

  return rows.map(finish)


def samples(clients: int = CLIENTS, most: int = WINDOWS):
  """[N] windows; at least two devices have some."""

  def mend(row):
    found = np.array(row, np.int32)
    found[:2] = np.maximum(found[:2], 1)
    return found

  one = st.integers(0, most)
  return st.lists(one, min_size=clients, max_size=clients).map(mend)


def cases():
  """Everything that may vary without another program."""
  return st.builds(
    Case,
    owned=owners(),
    samples=samples(),
    share=numbers(-0.5, 1.5, CLIENTS),
    speed=numbers(1e5, 1e8, CLIENTS),
    link=numbers(1e4, 1e7, CLIENTS),
    watts=numbers(0.1, 10, CLIENTS, 4),
    data=st.integers(0, 2**16),
    seed=st.integers(0, 2**31 - 1),
    client_lr=st.floats(0.001, 0.3),
  )


def task(method: str):
  """Two modalities of two and three channels."""
  return _task(tiny.needs(method), tiny.backbone(method))


def _task(needs: tuple, backbone: str):
  return tiny.task(backbone, modalities=('acc', 'gyro'), **dict(needs))


def frame(method: str) -> Population:
  """Everything at its place, every device with all windows."""
  return _frame(tiny.needs(method), tiny.backbone(method))


@functools.cache
def _frame(needs: tuple, backbone: str) -> Population:
  full = [WINDOWS] * CLIENTS
  owned = np.ones((CLIENTS, MODALITIES))
  own = _task(needs, backbone)
  return tiny.population(own, owned=owned, samples=full)


@functools.cache
def _budget(needs: tuple, backbone: str):
  """(owned, share) -> [N] budgets, compiled once."""
  own = _task(needs, backbone)
  work, modality = own.work, np.array(own.blocks.modality)

  @jax.jit
  def budget(owned, share):
    shared = jnp.broadcast_to(modality < 0, (CLIENTS, len(modality)))
    every = shared | owned[:, np.maximum(modality, 0)]
    least = costs.step_flops(work, owned, shared)
    most = costs.step_flops(work, owned, every)
    return least + share * (most - least)

  return budget


def world(case: Case, method: str) -> Population:
  """The population of a case.

  Args:
    case: drawn by `cases`.
    method: says which task it is for.
  """
  kind = tiny.needs(method), tiny.backbone(method)
  whole = _frame(*kind)
  rng = np.random.default_rng(case.data)
  y = np.asarray(whole.bank.y)
  x = {}
  for name, old in whole.bank.x.items():
    centre = rng.normal(size=(3, 1, old.shape[-1]))
    noise = rng.normal(size=old.shape)
    x[name] = jnp.asarray(centre[y] + noise, jnp.float32)
  link = jnp.asarray(case.link, jnp.float32)
  fleet = whole.fleet.replace(
    owned=jnp.asarray(case.owned),
    samples=jnp.asarray(case.samples),
    speed=jnp.asarray(case.speed, jnp.float32),
    uplink=link,
    downlink=2 * link,
    watts=jnp.asarray(case.watts, jnp.float32),
    budget=_budget(*kind)(case.owned, jnp.asarray(case.share, jnp.float32)),
  )
  return whole.replace(bank=whole.bank.replace(x=x), fleet=fleet)


def tried(test):
  """Counts the examples of a property."""

  @functools.wraps(test)
  def counting(*args, **kwargs):
    TRIED['examples'] += 1
    return test(*args, **kwargs)

  return counting
