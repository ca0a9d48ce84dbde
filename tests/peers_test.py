"""The comparison with other simulators: our side runs, its layers are right.

The other sides need environments of their own and are skipped here unless
RELIEF_PEER_PYTHONS tells where they are: `torch=…,pfl=…`.
"""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.peers import common, image_task, winograd

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
  grid = winograd.conv3x3(x, w)
  batch, side = x.shape[0], (x.shape[1] - 2) // 4
  y = jnp.stack([jnp.stack(row, 1) for row in grid], 1)
  y = y.reshape(batch, side, side, 4, 4, -1).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(batch, 4 * side, 4 * side, -1)


@pytest.mark.parametrize('form', [image_task.conv3x3, by_tiles])
def test_convolution_and_its_gradients(form):
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, 10, 10, 4))
  w = jax.random.normal(keys[1], (36, 5))
  expected, back = jax.vjp(direct, x, w)
  found, own_back = jax.vjp(form, x, w)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  dy = jax.random.normal(keys[2], expected.shape)
  for a, b in zip(own_back(dy), back(dy), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


def test_dense_gradients():
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (3, 8))
  w = jax.random.normal(keys[1], (8, 4))
  dy = jax.random.normal(keys[2], (3, 4))
  _, expected = jax.vjp(jnp.matmul, x, w)
  _, found = jax.vjp(image_task.dense, x, w)
  for a, b in zip(found(dy), expected(dy), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_model_of_the_paper():
  setup = common.SETUPS['pfl_cifar10']
  task = image_task.image_task(setup, 'winograd')
  shapes = jax.eval_shape(task.init, jax.random.key(0))
  # 3x3x32, 3x3x64, 12544x128, 128x10 and their biases.
  assert sum(v.size for v in jax.tree.leaves(shapes)) == 1_626_442
  assert float(task.work.size.sum()) == 1_626_442


def test_forms_of_the_encoder_agree():
  setup = common.SETUPS['pfl_cifar10']
  own = image_task.init(jax.random.key(0), setup)['encoder']['image']
  x = jax.random.normal(jax.random.key(1), (2, 12, 12, 3))
  found = [
    np.sort(image_task.encode(kind, own, x), axis=-1)
    for kind in ('winograd', 'im2col')
  ]
  # The order of features differs, which a trained dense layer does not see.
  np.testing.assert_allclose(found[0], found[1], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize('workload', ['sensor', *common.SETUPS])
def test_driver(workload):
  flags = [f'--{side}_python={path}' for side, path in GIVEN.items()]
  done = subprocess.run(
    [sys.executable, '-m', 'benchmarks.peers', '--smoke', '--rounds=1']
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
    if side in GIVEN or side == 'naive_vmap':
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
