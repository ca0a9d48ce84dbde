"""Chooses linear layers by pattern and gives them adapters of low rank.

LoRA (https://arxiv.org/abs/2106.09685): a frozen w gets (alpha / r) a @ b
beside it, a ~ Kaiming and b = 0, so that nothing changes at first.
"""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.engine import ambient
from relief_jax.errors import InputError
from relief_jax.models import layers, patterns
from relief_jax.models.parts import Model, Stage
from relief_jax.models.patterns import Patterns
from relief_jax.task import LowRank
from relief_jax.types import Array, PyTree

EVERY = 'all'


def chosen(paths: Sequence[str], wanted: Iterable[str]) -> tuple[str, ...]:
  """Lists the linear layers that patterns choose, in the order of the model.

  >>> chosen(('embed', 'blocks/0/q', 'blocks/1/q'), ['q'])
  ('blocks/0/q', 'blocks/1/q')

  Args:
    paths: of all of them, `blocks/0/q`.
    wanted: `all`, last parts of a path, or patterns of whole paths.

  Raises:
    InputError: a pattern that fits none.
  """

  def fits(path, pattern):
    last = path.rpartition('/')[2]
    return pattern == EVERY or any(
      fnmatch.fnmatchcase(name, pattern) for name in (path, last)
    )

  wanted = tuple(wanted)
  for pattern in wanted:
    if not any(fits(path, pattern) for path in paths):
      last = dict.fromkeys(path.rpartition('/')[2] for path in paths)
      raise InputError(
        f'the pattern {pattern!r} of adapters, which fits no linear layer',
        f"'all', one of {', '.join(last)}, or a pattern such as {paths[-1]}",
        'correct it',
      )
  return tuple(p for p in paths if any(fits(p, pattern) for pattern in wanted))


def adapter(key: Array, shape: tuple[int, int], rank: int) -> dict[str, Array]:
  """Draws {'a': [i, r], 'b': [r, o] zeros} for a layer of shape [i, o]."""
  return {
    'a': layers.dense_init(key, shape[0], rank),
    'b': jnp.zeros((rank, shape[1])),
  }


def merged(w: Array, low: Mapping[str, Array], scale: float) -> Array:
  """Computes w + scale * a @ b."""
  return w + scale * (low['a'] @ low['b'])


def zero_head(head: PyTree, base_head: bool) -> PyTree:
  """Gives the head that training starts from: zero where the base has one."""
  return jax.tree.map(jnp.zeros_like, head) if base_head else head


def whole_head(params: PyTree, frozen: PyTree, base_head: bool) -> PyTree:
  """Gives the head of the forward pass, with that of the base if it has one."""
  if not base_head:
    return params['head']
  return jax.tree.map(jnp.add, frozen['head'], params['head'])


class Adapters(NamedTuple):
  """Says that of a user's model only adapters train, and what else.

  Attributes:
    layers: patterns of the weights [i, o] that have them (patterns.py).
    rank: r.
    alpha: their product counts alpha / r.
    train: patterns of parameters that train as they are, such as a head.
  """

  layers: Patterns = '*kernel'
  rank: int = 8
  alpha: float = 16.0
  train: Patterns = ()


# Behind the name of the weights that they are beside.
_ENDS = {'a': '_lora_a', 'b': '_lora_b'}


def adapted(paths: Iterable[str]) -> tuple[LowRank, ...]:
  """Finds the layers of an adapted model among its parameters' names."""
  low, half = _ENDS['a'], _ENDS['b']
  bases = [p.removesuffix(low) for p in paths if p.endswith(low)]
  return tuple(LowRank((p + low,), p + half, (p,)) for p in bases)


def adapt(
  model: Model, own: Adapters, each: Mapping[str, int] | None = None
) -> tuple[Model, tuple[str, ...]]:
  """Gives a user's model adapters; every weight is merged with its own.

  Args:
    model: as functions.
    own: which.
    each: {name of a weight: rank of its adapter}, where it is not `own.rank`.

  Returns:
    The model, and the names of what is frozen.

  Raises:
    InputError: patterns that fit nothing, or no matrix.
  """
  shapes = jax.eval_shape(model.init, jax.eval_shape(lambda: ambient.key(0)))
  for wanted in (own.layers, own.train):
    for pattern in (wanted,) if isinstance(wanted, str) else wanted:
      patterns.used(pattern, list(shapes), 'adapters')
  frozen = tuple(p for p in shapes if not patterns.fits(p, own.train))
  weights = {
    p: shapes[p].shape
    for p in frozen
    if patterns.fits(p, own.layers) and shapes[p].ndim == 2
  }
  if not weights:
    raise InputError(
      f'adapters of {own.layers!r}, among which is no matrix that is frozen',
      'weights of linear layers, [inputs, outputs]',
      'name others, or leave them out of `train`',
    )
  scale, ranks = own.alpha / own.rank, each or {}

  def init(key):
    leaves = dict(model.init(key))
    for i, (path, shape) in enumerate(weights.items()):
      rank = ranks.get(path, own.rank)
      low = adapter(jax.random.fold_in(key, i), shape, rank)
      leaves |= {path + end: low[half] for half, end in _ENDS.items()}
    return leaves

  def stage(one: Stage) -> Stage:
    def apply(leaves, *inputs, **named):
      bare = {
        k: v for k, v in leaves.items() if not k.endswith((*_ENDS.values(),))
      }
      for path in bare:
        low = {
          h: leaves[path + e] for h, e in _ENDS.items() if path + e in leaves
        }
        if low:
          bare[path] = merged(bare[path], low, scale)
      return one.apply(bare, *inputs, **named)

    return Stage(one.prefix, apply)

  adapted = model._replace(
    init=init,
    encoders=tuple(tuple(map(stage, chain)) for chain in model.encoders),
    head=stage(model.head),
  )
  return adapted, frozen
