"""Fuses modalities by attention, in place of their sum.

Every modality's features are projected by its own column block, p_m = h_m W_m;
a head k scores it by q_k . tanh(p_m), soft-max over those that run gives its
weights a_mk, and the head's share of the units is sum_m a_mk p_m. As in
FedMultimodal (https://github.com/usc-sail/fed-multimodal, `fuse_base`:
soft-max of a linear layer of the tanh of a linear layer, six heads), but that
there the positions are moments of all modalities and every head keeps all
units. **Ours**: one position per modality, the first layer is the modality's
own, and heads share the units out, so that the model behind is the same as with
the sum.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from relief_jax.errors import InputError
from relief_jax.models import layers
from relief_jax.types import Array


def weights(score: Array, run: Array) -> Array:
  """Computes the soft-max over the modalities that run, [m, B, heads].

  Those that do not have weight 0 and no gradient; where none runs all are 0.

  Args:
    score: [m, B, heads].
    run: [m] bool.
  """
  return shares(score, run[:, None, None])


def shares(score: Array, here: Array) -> Array:
  """Computes the soft-max over the first axis, of those that are here.

  Args:
    score: [m, ...].
    here: [m, ...] bool, to be broadcast.
  """
  score = jnp.where(here, score, layers.NEVER)
  top = jax.lax.stop_gradient(score.max(0, keepdims=True))
  mass = jnp.where(here, jnp.exp(score - top), 0.0)
  return mass / jnp.maximum(mass.sum(0, keepdims=True), 1e-9)


def pool(query: Array, projected: Sequence[Array], run: Array) -> Array:
  """Computes the fused units, [B, hidden].

  Modality by modality, so that no gradient is taken of one that nobody trains.

  Args:
    query: [hidden, heads].
    projected: m of [B, hidden], p of the modalities.
    run: [m] bool.
  """
  batch, hidden = projected[0].shape
  heads = query.shape[1]
  weight = weights(jnp.stack([jnp.tanh(p) @ query for p in projected]), run)
  shared_out = sum(
    w[..., None] * p.reshape(batch, heads, hidden // heads)
    for w, p in zip(weight, projected, strict=True)
  )
  return jnp.asarray(shared_out).reshape(batch, hidden)


def check(kind: str, hidden: int, heads: int, fusion_norm: bool) -> None:
  """Refuses sizes and options that do not fit together.

  Args:
    kind: `attention`, or another weighted mean.
    hidden: units.
    heads: of the attention.
    fusion_norm: `Spec.fusion_norm`.

  Raises:
    InputError: units that heads cannot share, or a norm of the sum.
  """
  if kind == 'attention' and hidden % heads:
    raise InputError(
      f'{hidden} units for {heads} heads of attention',
      'as many for each',
      f'set --config.model.hidden={heads * -(-hidden // heads)}',
    )
  if fusion_norm:
    raise InputError(
      f'config.fusion_norm=True with config.model.fusion={kind}',
      'one of them: its weights add up to 1 already',
      'set --config.fusion_norm=False',
    )
