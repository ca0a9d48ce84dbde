"""Builds a perceptron over the last eight tokens, to predict the next one.

The smallest model of texts that beats counts of pairs: Y. Bengio and others, A
neural probabilistic language model, JMLR 3, 2003, without its direct
connections. Also an example of a model of one's own (docs/model.md).
"""

import functools

import jax
import jax.numpy as jnp

from relief_jax.errors import InputError
from relief_jax.models import layers, own
from relief_jax.models.encoders import Spec
from relief_jax.task import Task
from relief_jax.types import Array, PyTree

_CONTEXT = 8  # tokens that are seen
_WIDTH = 24  # of a token's embedding


@functools.lru_cache(maxsize=8)
def char_mlp(spec: Spec) -> Task:
  """Builds the task: embedding, hidden layer of `spec.hidden` units, head.

  Args:
    spec: of the model.

  Raises:
    InputError: inputs that are no tokens.
  """
  if not spec.next_token:
    raise InputError(
      f'backbone=char_mlp for data whose targets are {spec.targets}',
      'texts whose next token is predicted',
      'take another --config.backbone',
    )
  start = spec.classes  # the token before the first

  def init(key: Array) -> PyTree:
    one, two, three = jax.random.split(key, 3)
    size = _CONTEXT * _WIDTH
    return {
      'embed': {'w': 0.1 * jax.random.normal(one, (start + 1, _WIDTH))},
      'hidden': {
        'w': layers.dense_init(two, size, spec.hidden),
        'b': jnp.zeros(spec.hidden),
      },
      # Small weights, so that the first loss is close to log V.
      'head': {
        'w': 0.1 * layers.dense_init(three, spec.hidden, spec.classes),
        'b': jnp.zeros(spec.classes),
      },
    }

  def embed(params, x):  # [B, T] -> [B, T, context * width]
    before = ((0, 0), (_CONTEXT - 1, 0))
    rows = params['w'][jnp.pad(x, before, constant_values=start)]
    seen = [rows[:, i : i + x.shape[1]] for i in range(_CONTEXT)]
    return jnp.concatenate(seen, -1)

  def hidden(params, x):
    return jax.nn.relu(layers.bias(x @ params['w'], params['b']))

  def head(params, x):
    return layers.bias(x @ params['w'], params['b'])

  return own.from_functions(
    init, {'embed': embed, 'hidden': hidden, 'head': head}, spec
  )
