"""The comparison with other simulators: our side runs, its layers are right.

The other sides need environments of their own and are skipped here unless
RELIEF_PEER_PYTHONS tells where they are: `torch=…,pfl=…`.
"""

import json
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.peers import common, image_task, winograd
from relief_jax.models import layers

GIVEN = dict(
  v.split('=', 1)
  for v in os.environ.get('RELIEF_PEER_PYTHONS', '').split(',')
  if v
)


def direct(x, w):
  """The convolution as JAX has it."""
  kernel = w.reshape(3, 3, x.shape[-1], -1)
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def by_tiles(x, w):
  """The Winograd form, put back into one image."""
  batch, side = x.shape[0], x.shape[1] - 2
  filled = jnp.pad(x, ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=jnp.nan)
  y = winograd.conv3x3(winograd.blocks(filled), w)
  return y.transpose(2, 3, 0, 4, 1, 5).reshape(batch, side, side, -1)


@pytest.mark.slow
def test_convolution_and_its_gradients():
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, 10, 10, 4))
  w = jax.random.normal(keys[1], (36, 5))
  expected, back = jax.vjp(direct, x, w)
  found, own_back = jax.vjp(by_tiles, x, w)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  dy = jax.random.normal(keys[2], expected.shape)
  for a, b in zip(own_back(dy), back(dy), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


def plain(setup, params, x):
  """The same model as JAX has its layers, [B, classes]."""
  one, two = params['encoder']['image']
  h = jax.nn.relu(layers.bias(direct(x, one['w']), one['b']))
  h = jax.nn.relu(layers.bias(direct(h, two['w']), two['b']))
  batch, side = x.shape[0], (x.shape[1] - 4) // 2
  h = h.reshape(batch, side, 2, side, 2, -1).max((2, 4))
  # Rows of the dense layer are numbered by place in a block of two, then block.
  h = h.reshape(batch, side // 2, 2, side // 2, 2, -1)
  z = h.transpose(0, 2, 4, 1, 3, 5).reshape(batch, -1)
  first, last = params['dense']
  z = jax.nn.relu(layers.bias(z @ first['w'], first['b']))
  return layers.bias(z @ last['w'], last['b'])


@pytest.mark.parametrize('batch', [pytest.param(2, marks=pytest.mark.slow), 17])
def test_the_model_and_its_gradients(batch):
  setup = common.SETUPS['pfl_cifar10']._replace(shape=(12, 12, 3))
  task = image_task.image_task(setup)
  params = image_task.init(jax.random.key(0), setup)
  params = jax.tree.map(lambda v: v + 0.1, params)
  x = jax.random.normal(jax.random.key(1), (batch, 12, 12, 3))
  weight = jax.random.normal(jax.random.key(2), (batch, setup.classes))

  def own(params):
    features = {'image': task.encode(params, None, 0, x, 0)}
    return task.fuse(params, None, features, None)

  @partial(jax.jit, static_argnums=0)
  def both(model, params):
    scores, back = jax.vjp(model, params)
    return scores, back(weight)[0]

  expected, want = both(lambda p: plain(setup, p, x), params)
  found, gradients = both(own, params)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
  pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(want), strict=True)
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


def test_model_of_the_paper():
  setup = common.SETUPS['pfl_cifar10']
  task = image_task.image_task(setup)
  shapes = jax.eval_shape(task.init, jax.random.key(0))
  # 3x3x32, 3x3x64, 12544x128, 128x10 and their biases.
  assert sum(v.size for v in jax.tree.leaves(shapes)) == 1_626_442
  assert float(task.work.size.sum()) == 1_626_442


@pytest.mark.slow
@pytest.mark.parametrize('workload', ['sensor', *common.SETUPS])
def test_driver(workload):
  flags = [f'--{side}_python={path}' for side, path in GIVEN.items()]
  done = subprocess.run(
    [sys.executable, '-m', 'benchmarks.peers', '--smoke']
    + [f'--workloads={workload}', *flags],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  lines = [json.loads(v) for v in done.stdout.splitlines()]
  sides = {v['side']: v for v in lines if 'side' in v}
  assert not [v for v in lines if 'failed' in v]
  ours = sides.pop('relief')
  assert ours['clients_per_second'] > 0
  for side, line in sides.items():
    side = side.removesuffix('_im2col')
    if side in GIVEN or side in ('naive_vmap', 'relief_config'):
      assert line['clients_per_second'] > 0
      if workload != 'sensor':
        assert line['parameters'] == ours['parameters']
        assert line['local_steps'] == ours['local_steps']
    else:
      assert line['skipped'] == f'no --{side}_python given'
  if not GIVEN:
    pytest.skip(
      'our side ran; RELIEF_PEER_PYTHONS names no environment for the others'
    )
