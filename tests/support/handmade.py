"""A model of three arrays in two blocks, updates and devices without training.

For pieces that a round is made of, each by itself and without a compiled round.
"""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.clients.device import Device, Update
from relief_jax.task import Blocks

ENCODER, HEAD = range(2)
GROUPS = {'encoder': ENCODER, 'head': HEAD}
SHAPES = {'encoder': {'w': (2, 3), 'b': (3,)}, 'head': (4,)}
SIZES = np.array([9, 4])
# What a piece may ask a `Task` for.
TASK: Any = SimpleNamespace(
  groups=GROUPS,
  num_blocks=2,
  blocks=Blocks(('encoder/acc', 'head'), (0, -1), ('encoder', 'head')),
  work=SimpleNamespace(size=jnp.asarray(SIZES, jnp.float32)),
)


def params(draw=np.zeros):
  """P; `draw` makes an array of a shape."""
  return jax.tree.map(
    lambda shape: jnp.asarray(draw(shape), jnp.float32),
    SHAPES,
    is_leaf=lambda v: isinstance(v, tuple),
  )


def drawn(seed=0):
  """P of normal numbers."""
  rng = np.random.default_rng(seed)
  return params(lambda shape: rng.normal(size=shape))


def trained(*blocks):
  """Prefix tree of P, bool: these blocks are trained."""
  return {name: jnp.array(number in blocks) for name, number in GROUPS.items()}


def update(delta, blocks=(ENCODER, HEAD), **fields) -> Update:
  """Of a device that trained these blocks; zeros elsewhere are the caller's."""
  weight = jnp.zeros(2).at[jnp.array(blocks, int)].set(1.0)
  values = {'weight': weight, 'mask': trained(*blocks), 'loss': jnp.float32(1)}
  return Update(delta, **{**values, **fields})


def device(number=0, **fields) -> Device:
  """With this id; what it cannot do without a round is None."""
  values = dict.fromkeys(Device._fields)
  values |= {
    'fleet': SimpleNamespace(id=jnp.int32(number)),
    'trained': jnp.ones(2, bool),
    'weight': jnp.ones(2),
    'hparams': {},
    'faulty': (),
    'client_state': (),
    'branch': True,
  }
  return Device(**{**values, **fields})


def flat(tree):
  """All numbers of a pytree, [n] float64."""
  return np.concatenate(
    [np.asarray(v, np.float64).ravel() for v in jax.tree.leaves(tree)]
  )


def same(found, want):
  """Equal to the last bit."""
  jax.tree.map(np.testing.assert_array_equal, found, want)
