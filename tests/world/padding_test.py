"""Worlds of nearly one size have arrays of one shape; nobody counts padding."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from relief_jax import models, world
from relief_jax.runs import evaluation
from tests.support import tiny


@functools.cache
def fold(number, **changes):
  config = tiny.config(
    **{
      'synthetic.subjects': 7,
      'synthetic.windows_per_class': 23,
      'synthetic.classes': 10,
      'data.public_subjects': 0,
      'data.own_share': 0.22,
      'data.split': 'folds',
      'data.test_subjects': (),
      'data.folds': 3,
      'data.fold': number,
      **changes,
    }
  )
  return world.build(config, None)


def shapes(found):
  arrays = found.population, found.tests
  leaves = [v.shape for v in jax.tree.leaves(arrays)]
  return leaves, jax.tree.structure(arrays)


def test_worlds_of_nearly_one_size_share_shapes():
  found = [fold(1, **{'synthetic.windows_per_class': n}) for n in (56, 57)]
  sizes = [one.windows for one in found]
  assert sizes[0] != sizes[1]
  assert shapes(found[0]) == shapes(found[1])


def test_epochs_run_over_no_padding():
  found = fold(0, local_epochs=1)
  assert len(found.population.bank.y) == found.windows['train']
  most = np.asarray(found.population.fleet.samples).max()
  assert found.population.rows.shape[1] == most


@pytest.mark.slow
def test_nobody_points_to_padding_and_nobody_counts_it():
  found = fold(1)
  population, tests = found.population, found.tests
  own = tests.own
  real = {k: found.windows[k] for k in ('train', 'test', 'own')}
  assert len(tests.person) > real['test'] == (tests.person >= 0).sum()
  assert len(own.order) > real['own'] == (own.order >= 0).sum()
  assert len(population.bank.y) > real['train'] > population.rows.max()

  def first(bank, count):
    cut = functools.partial(jax.tree.map, lambda v: v[:count])
    return dataclasses.replace(bank, x=cut(bank.x), y=cut(bank.y))

  exact = dataclasses.replace(
    tests,
    bank=first(tests.bank, real['test']),
    person=tests.person[: real['test']],
    own=dataclasses.replace(
      own, bank=first(own.bank, real['own']), order=own.order[: real['own']]
    ),
  )
  task = models.make('cnn', found.spec)
  owned = np.asarray(population.fleet.owned)
  scope = evaluation.scope(owned, found.rare, len(found.persons), 'skip')

  @jax.jit
  def counted(tests):
    return evaluation.evaluate(
      task, task.init(jax.random.key(0)), {}, tests, population.fleet, scope
    )

  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6),
    counted(tests),
    counted(exact),
  )
