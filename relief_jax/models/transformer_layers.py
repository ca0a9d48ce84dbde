"""Computes a transformer's layers, all tokens of a batch at once, [R, d].

R are B * T tokens. A product over [B, T, d] contracts two axes in its weight
gradient and leaves XLA:CPU's fast product (2.4 times slower at d = 64), so
tokens are flat. Gradients of norm, GELU and softmax are written by hand: they
keep less and make fewer passes than autodiff.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.models import lora_layers
from relief_jax.types import Array, PyTree

_EPSILON = 1e-5
_GELU = (2 / jnp.pi) ** 0.5


def linear_init(key: Array, fan_in: int, fan_out: int) -> dict[str, Array]:
  """Draws {'w': [fan_in, fan_out], 'b': [fan_out]}, of variance 1 / fan_in."""
  w = jax.nn.initializers.lecun_normal()(key, (fan_in, fan_out), jnp.float32)
  return {'w': w, 'b': jnp.zeros(fan_out)}


def norm_init(size: int) -> dict[str, Array]:
  """Gives {'scale': ones, 'bias': zeros} of a layer norm."""
  return {'scale': jnp.ones(size), 'bias': jnp.zeros(size)}


@jax.custom_vjp
def product(x: Array, w: Array, b: Array) -> Array:
  """Computes x @ w + b, [R, i], [i, o], [o] -> [R, o].

  The weight gradient is made with its wider operand as it lies in memory; the
  barrier keeps XLA:CPU from folding the transposition back into the product,
  which is then 3.6 times slower.
  """
  return x @ w + jnp.broadcast_to(b, (x.shape[0], b.size))


def _product_forward(x, w, b):
  return product(x, w, b), (x, w)


def _product_backward(saved, dy):
  x, w = saved
  if w.shape[0] < w.shape[1]:
    dw = x.T @ dy
  else:
    dw = jax.lax.optimization_barrier(dy.T @ x).T
  return dy @ w.T, dw, dy.sum(0)


product.defvjp(_product_forward, _product_backward)


def linear(
  x: Array,
  layer: dict[str, Array],
  low: dict[str, Array] | None,
  scale: float,
  merge: bool,
) -> Array:
  """Computes a linear layer, with its adapter where it has one.

  Args:
    x: [R, i].
    layer: {'w': [i, o], 'b': [o]}.
    low: {'a': [i, r], 'b': [r, o]} of LoRA, or None.
    scale: alpha / r.
    merge: form w + scale * a @ b first: faster one client at a time on a CPU.
      Under a vmap over clients it would be a weight for each of them.
  """
  if low is None:
    return product(x, layer['w'], layer['b'])
  if merge:
    return product(x, lora_layers.merged(layer['w'], low, scale), layer['b'])
  return product(x, layer['w'], layer['b']) + scale * (
    (x @ low['a']) @ low['b']
  )


@jax.custom_vjp
def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
  """Normalises every token over its features, [R, d]."""
  return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(x, scale, bias):
  centred = x - x.mean(-1, keepdims=True)
  deviation = jnp.square(centred).mean(-1, keepdims=True)
  inverse = jax.lax.rsqrt(deviation + _EPSILON)
  normal = centred * inverse
  wide = jnp.broadcast_to(scale, x.shape), jnp.broadcast_to(bias, x.shape)
  return normal * wide[0] + wide[1], (normal, inverse, scale)


def _layer_norm_backward(saved, dy):
  normal, inverse, scale = saved
  inner = dy * jnp.broadcast_to(scale, dy.shape)
  along = (inner * normal).mean(-1, keepdims=True)
  dx = inverse * (inner - inner.mean(-1, keepdims=True) - normal * along)
  return dx, (dy * normal).sum(0), dy.sum(0)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def gelu(x: Array) -> Array:
  """Computes GELU in its tanh form."""
  return _gelu_forward(x)[0]


def _gelu_forward(x):
  t = jnp.tanh(_GELU * (x + 0.044715 * x * x * x))
  return 0.5 * x * (1 + t), (x, t)


def _gelu_backward(saved, dy):
  x, t = saved
  slope = (1 - t * t) * (_GELU + 3 * 0.044715 * _GELU * x * x)
  return (dy * 0.5 * (1 + t + x * slope),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@jax.custom_vjp
def softmax(score: Array) -> Array:
  """Computes a softmax over the last axis; its gradient keeps only it."""
  mass = jnp.exp(score - score.max(-1, keepdims=True))
  return mass / mass.sum(-1, keepdims=True)


def _softmax_forward(score):
  p = softmax(score)
  return p, p


def _softmax_backward(p, dp):
  weighed = dp * p
  return (weighed - p * weighed.sum(-1, keepdims=True),)


softmax.defvjp(_softmax_forward, _softmax_backward)


def attention(
  q: Array, k: Array, v: Array, bias: Array, batch: int, heads: int
) -> Array:
  """Computes attention of several heads, [R, d] each -> [R, d].

  Args:
    q: queries, of `batch` samples one after another.
    k: keys.
    v: values.
    bias: [B or 1, 1, T or 1, T], added to the scores; `layers.NEVER`: not
      seen.
    batch: B.
    heads: H.
  """
  rows, d = q.shape
  size = d // heads

  def apart(x):
    return x.reshape(batch, -1, heads, size).transpose(0, 2, 1, 3)

  score = jnp.einsum('bhqd,bhkd->bhqk', apart(q), apart(k)) * size**-0.5
  p = softmax(score + jnp.broadcast_to(bias, score.shape))
  out = jnp.einsum('bhqk,bhkd->bhqd', p, apart(v))
  return out.transpose(0, 2, 1, 3).reshape(rows, d)


def gated(
  function: Callable[[PyTree, Array], Array],
  params: PyTree,
  x: Array,
  wanted: Array | bool | np.bool_ | None,
) -> Array:
  """Computes function(params, x) whose backward pass is skipped if unwanted.

  A program then holds every layer's backward pass once, however many sets of
  layers may train.

  Args:
    function: of one layer.
    params: of it.
    x: what comes in.
    wanted: [] bool, traced or not, the layer or one below it trains; else
      gradients are 0. None: always.
  """
  if wanted is None or (isinstance(wanted, bool | np.bool_) and wanted):
    return function(params, x)

  @jax.custom_vjp
  def run(params, x, wanted):
    del wanted
    return function(params, x)

  def forward(params, x, wanted):
    y, pull = jax.vjp(function, params, x)
    return y, (pull, wanted)

  def backward(saved: Any, dy):
    pull, wanted = saved
    nothing = tree.zeros_like_output(pull, dy)
    dparams, dx = jax.lax.cond(wanted, pull, lambda _: nothing, dy)
    return dparams, dx, None

  run.defvjp(forward, backward)
  return run(params, x, wanted)
