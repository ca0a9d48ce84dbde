"""The transformer in rounds: methods, layouts, and the shipped comparison."""

import chex
import jax
import numpy as np
import pytest

from experiments.configs import transformer as config_of
from relief_jax import config as config_lib
from relief_jax.config import validation
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.keys import flatten
from tests.models.transformer_test import task_of
from tests.support import tiny

LAYOUTS = {'one': placement.Layout(), 'block': placement.Layout(block=2)}
METHODS = ('fedavg', 'cohort_mean', 'relief', 'elastic_fl', 'fedpmt')


def after(method, kind, layout='one', rounds=2, **overrides):
  task = task_of(kind)
  population = tiny.with_share(task, tiny.population(task), 0.5)
  overrides = {'deadline': 1.0, **overrides}
  setting = tiny.setting(
    population, method, layout=LAYOUTS[layout], **overrides
  )
  return task, tiny.step(method, task, population, setting, rounds)


OFTEN = (('relief', 'lora'),)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('method', 'kind'),
  [
    pytest.param(
      method,
      kind,
      marks=() if (method, kind) in OFTEN else pytest.mark.slow,
    )
    for method in METHODS
    for kind in ('full', 'lora')
  ],
)
def test_methods_run(method, kind):
  fill = {'fill': 'input'} if method == 'fedavg' else {}
  task, (state, info) = after(method, kind, **fill)
  start = tiny.init(task)
  assert np.isfinite(info.loss).all()
  change = jax.tree.map(lambda a, b: abs(a - b).max(), state.params, start)
  assert max(jax.tree.leaves(change)) > 0
  if method in ('relief', 'elastic_fl', 'fedpmt'):
    # A budget between the least and all of it is a choice.
    trained = np.asarray(info.trained)
    assert (trained.any(-1) & ~trained.all(-1)).any()


@pytest.mark.slow
@pytest.mark.parametrize(
  'method', ['fedmfs_style', 'fedprox', 'local_only', 'tfedavg']
)
def test_other_methods_can_be_traced(method):
  task = task_of('lora')
  population = tiny.with_share(task, tiny.population(task), 0.5)
  setting = tiny.setting(population, method, deadline=1.0)
  found = tiny.algorithm(method, task, setting)

  def whole(key, population, hparams):
    state = found.init(key, task.init(key))
    return found.step(key, state, population, hparams)

  _, info = jax.eval_shape(
    whole, jax.random.key(0), population, setting.hparams
  )
  assert info.trained.shape[-1] == task.num_blocks


@pytest.mark.slow
@pytest.mark.parametrize(
  'kind', ['lora', pytest.param('full', marks=pytest.mark.slow)]
)
def test_layouts_agree(kind):
  (_, (one, info)), (_, (block, other)) = (
    after('relief', kind, layout) for layout in LAYOUTS
  )
  np.testing.assert_array_equal(info.trained, other.trained)
  chex.assert_trees_all_close(one.params, block.params, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
  'method', ['heterofl', 'fedrolex', 'feddrop', 'fiarse']
)
def test_methods_of_widths_say_what_is_missing(method):
  with pytest.raises(InputError, match='declares no `Widths`'):
    after(method, 'full', rounds=1)


@pytest.mark.parametrize('variant', ['smoke', 'folds,mhealth', 'central,smoke'])
def test_every_run_of_the_shipped_comparison_is_a_config(variant):
  shipped = config_of.get_config(variant)
  groups = {label.partition('/')[0] for label in shipped.labels}
  assert groups == {'full', 'lora'}
  for keys in shipped.methods.values():
    c = config_lib.default(keys['method'])
    c.update_from_flattened_dict(flatten(keys.to_dict()))
    c.backbone = shipped.backbone
    validation.validate(c)


@pytest.mark.slow
def test_it_learns():
  task = task_of('full')
  population = tiny.population(task)
  setting = tiny.setting(
    population, 'fedavg', steps=4, client_lr=0.05, fill='input'
  )
  losses = [
    float(np.nanmean(info.loss))
    for _, info in tiny.run('fedavg', task, population, setting, 12)
  ]
  assert losses[-1] < 0.4 * losses[0]
