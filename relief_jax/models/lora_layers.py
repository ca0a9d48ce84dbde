"""Chooses linear layers by pattern and gives them adapters of low rank.

LoRA (https://arxiv.org/abs/2106.09685): a frozen w gets (alpha / r) a @ b
beside it, a ~ Kaiming and b = 0, so that nothing changes at first.
"""

import fnmatch
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from relief_jax.errors import InputError
from relief_jax.models import layers
from relief_jax.types import Array

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


def merged(w: Array, low: dict[str, Array], scale: float) -> Array:
  """Computes w + scale * a @ b."""
  return w + scale * (low['a'] @ low['b'])


def zero_head(head, base_head: bool):
  """Gives the head that training starts from: zero where the base has one."""
  return jax.tree.map(jnp.zeros_like, head) if base_head else head
