"""What a device holds is what it is tested with: against plain loops."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.algorithms import fiarse, heterofl, tfedavg
from relief_jax.runs import evaluation
from relief_jax.types import HeldOut, OwnWindows
from tests.support import tiny

METHODS = ('heterofl', 'fedrolex', 'fiarse', 'depthfl', 'tfedavg')
DONE = 4  # rounds


def held_out(population, owned_rows):
  """The training bank, also as everybody's own later windows."""
  bank = population.bank
  width = max(map(len, owned_rows))
  rows = np.zeros((len(owned_rows), width), np.int32)
  count = np.array([len(r) for r in owned_rows], np.int32)
  for n, own in enumerate(owned_rows):
    rows[n, : len(own)] = own
  order = np.flatnonzero(np.arange(width) < count[:, None]).astype(np.int32)
  own = OwnWindows(
    bank=bank,
    rows=jnp.asarray(rows),
    count=jnp.asarray(count),
    order=jnp.asarray(order),
    first=jnp.int32(0),
  )
  person = jnp.zeros(len(bank.y), jnp.int32)
  return HeldOut(bank, person, own)


@functools.cache
def world(method):
  """Five devices, four of which afford less and less of the model."""
  task = tiny.task('cnn', filters=(8, 8), hidden=16, exits=method == 'depthfl')
  population = tiny.population(task)
  whole = float(
    task.work.shared
    + task.work.fwd.sum()
    + task.work.wgrad.sum()
    + task.work.agrad.sum()
  )
  budget = np.array([1.0, 0.5, 0.2, 0.05, 2.0], np.float32) * whole
  fleet = population.fleet.replace(budget=jnp.asarray(budget))
  population = population.replace(fleet=fleet)
  setting = tiny.setting(population, method, deadline=1.0)
  params = jax.tree.map(lambda v: 2 * v + 0.05, tiny.init(task))
  own = [[0, 3, 5], [], [7, 8], [1], [9, 2, 4, 6]]
  return task, setting, population, params, held_out(population, own)


@functools.cache
def counted(method):
  task, setting, population, params, tests = world(method)
  algorithm = tiny.algorithm(method, task, setting)
  owned = np.asarray(population.fleet.owned)
  scope = evaluation.scope(owned, 2, 1, 'skip')
  model = task
  if algorithm.ensemble:
    model = task.exits.until(task.cuts, True)

  @jax.jit
  def run(params, fleet):
    held = algorithm.device_submodels(
      params, jnp.int32(DONE), fleet, setting.hparams
    )
    return held.model_index, evaluation.evaluate(
      model, params, {}, tests, fleet, scope, held
    )

  index, counts = run(params, population.fleet)
  return scope, np.asarray(index), jax.tree.map(np.asarray, counts)


def plain_logits(method, task, setting, params, level, x, owned):
  """Class scores of one device's sub-model, by cutting it out with NumPy."""
  named = jax.tree.map(np.asarray, params)
  exits = [(named['fusion'], named['bias'], named['head'])]
  layers = len(named['encoder']['acc'])
  if method in ('heterofl', 'fedrolex'):
    share = heterofl.SHARES[level]
    first = DONE - 1 if method == 'fedrolex' else 0
    scale = 1 / share if setting.options.scale else 1.0

    def units(size):
      return (first + np.arange(int(np.ceil(share * size)))) % size

    def conv(layer, above, below):
      w = layer['w'].reshape(len(layer['b']), -1, below[1])
      w = w[above][:, :, below[0]].reshape(len(above), -1)
      return {'w': scale * w, 'b': scale * layer['b'][above]}

    encoder = {}
    for name, own in named['encoder'].items():
      channels = x[name].shape[-1]
      below = (np.arange(channels), channels)
      encoder[name] = []
      for layer in own:
        above = units(len(layer['b']))
        encoder[name].append(conv(layer, above, below))
        below = (above, len(layer['b']))
    wide = units(len(named['bias']))
    fusion = {
      name: scale * block[units(len(block))][:, wide]
      for name, block in named['fusion'].items()
    }
    head = {'w': named['head']['w'][wide], 'b': named['head']['b']}
    named = {**named, 'encoder': encoder}
    exits = [(fusion, scale * named['bias'][wide], head)]
  elif method == 'fiarse':
    every = np.concatenate([abs(v).ravel() for v in jax.tree.leaves(named)])
    count = int(np.ceil(fiarse.SHARES[level] * every.size))
    least = np.sort(every)[::-1][count - 1]
    named = jax.tree.map(lambda v: np.where(abs(v) >= least, v, 0), named)
    exits = [(named['fusion'], named['bias'], named['head'])]
  elif method == 'depthfl':
    layers = level or task.cuts
    early = [(e['fusion'], e['bias'], e['head']) for e in named['exit']]
    exits = [*early, *exits][:layers]
  elif method == 'tfedavg':
    ends = task.ends

    def ternary(end, part):
      return jax.tree.map(
        lambda v: (
          v
          if end or v.ndim < 2
          else np.asarray(tfedavg.quantise(jnp.asarray(v), 'twn'))
        ),
        part,
      )

    named = jax.tree.map(ternary, ends, named)
    exits = [(named['fusion'], named['bias'], named['head'])]
  found = []
  features = {}
  for m, name in enumerate(task.modalities):
    if owned[m]:
      h, at_depth = x[name], []
      for layer in named['encoder'][name][:layers]:
        kernel = layer['w'].shape[1] // h.shape[-1]
        steps = (h.shape[1] - kernel) // 2 + 1
        columns = np.stack(
          [
            h[:, 2 * t : 2 * t + kernel].reshape(len(h), -1)
            for t in range(steps)
          ],
          1,
        )
        h = np.maximum(columns @ layer['w'].T + layer['b'], 0)
        at_depth.append(h.mean(1))
      features[name] = at_depth
  deep = len(exits) > 1 or method == 'depthfl'
  for d, (fusion, bias, head) in enumerate(exits):
    at = d if deep else layers - 1
    z = sum(h[at] @ fusion[name] for name, h in features.items()) + bias
    found.append(np.maximum(z, 0) @ head['w'] + head['b'])
  return sum(found) / len(found)


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_devices_are_tested_with_the_model_they_hold(method):
  task, setting, population, params, tests = world(method)
  scope, index, counts = counted(method)
  assert len(set(index.tolist())) >= {'tfedavg': 1, 'depthfl': 2}.get(method, 3)
  owned = np.asarray(population.fleet.owned)
  x = {m: np.asarray(v, np.float64) for m, v in population.bank.x.items()}
  y = np.asarray(population.bank.y)
  sets = scope.masks[scope.of_fleet]
  for n in range(5):
    guess = plain_logits(
      method, task, setting, params, index[n], x, owned[n]
    ).argmax(1)
    want = np.zeros((3, 3), int)
    np.add.at(want, (y, guess), 1)
    if index[n]:
      at = int((sets == owned[n]).all(1).argmax())
      got = counts.submodels[index[n] - 1, at, 0]
    else:
      at = int((scope.masks == owned[n]).all(1).argmax())
      got = counts.whole[at, 0]
    np.testing.assert_array_equal(got, want)
    # Its own later windows, with the same model.
    own = np.asarray(tests.own.rows)[n, : int(tests.own.count[n])]
    right = own[guess[own] == y[own]]
    for found, rows, values in zip(
      counts.own[n], (right, own, own), (y, guess, y), strict=True
    ):
      np.testing.assert_array_equal(
        found, np.bincount(values[rows], minlength=3)
      )


def test_the_whole_model_is_tested_as_without_sub_models():
  task, setting, population, params, tests = world('heterofl')
  scope, _, counts = counted('heterofl')
  plain = jax.jit(
    lambda p: evaluation.evaluate(task, p, {}, tests, population.fleet, scope)
  )(params)
  np.testing.assert_array_equal(counts.whole, plain.whole)
  assert plain.submodels == () and plain.model_index == ()


@pytest.mark.slow
def test_personal_models_see_the_sensors_of_their_devices():
  """Sets hold what a device has of them; so does each device's own windows."""
  task, _, population, params, tests = world('heterofl')
  owned = np.asarray(population.fleet.owned)
  assert not owned.all()
  scope = evaluation.scope(owned, 2, 1, 'skip')
  each = jax.tree.map(
    lambda v: jnp.stack([v * (1 + 0.2 * n) for n in range(5)]), params
  )
  found = jax.jit(
    lambda p: evaluation.evaluate_personal(
      task, p, {}, tests, population.fleet, scope
    )
  )(each)
  every = np.array(list(itertools.product((False, True), repeat=3)))
  wide = scope._replace(tested=tuple(map(tuple, every.tolist())))
  alone = jax.jit(
    lambda p: evaluation.evaluate(task, p, {}, tests, population.fleet, wide)
  )
  for n in range(5):
    want = alone(jax.tree.map(lambda v, n=n: v[n], each))
    at = (scope.masks & owned[n]) @ np.array([4, 2, 1])
    np.testing.assert_array_equal(found.whole[n], want.whole[at])
    np.testing.assert_array_equal(found.own[n], want.own[n])
