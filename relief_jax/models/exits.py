"""Adds early exits to the CNN: fusion, tail, head behind every encoder layer.

As in DepthFL (https://openreview.net/forum?id=pf8RIZTMU58), whose sub-models
end in a classifier of their own; with parallel encoders an exit fuses the
pooled activations of all of them at one depth (**ours**). The last exit is the
model's own fusion and head, so that a model with exits starts with the same
numbers as one without.
"""

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.errors import InputError
from relief_jax.models import attention, encoders, layers
from relief_jax.models.encoders import ExitGroups, Numbering, Spec
from relief_jax.types import Array, PyTree

# Of a model's key; the model itself splits it into fewer.
_EXITS = 100


def check(spec: Spec) -> None:
  """Refuses models without a place for exits.

  Raises:
    InputError: the layers of an encoder are in one group with its columns, or
      modalities are not fused by a sum.
  """
  if spec.exits and spec.fusion != 'concat':
    raise InputError(
      f'config.model.fusion is {spec.fusion!r} for a model with early exits',
      "'concat': every exit fuses by columns of its own",
      'set --config.model.fusion=concat',
    )
  if spec.exits and spec.groups == 'joint':
    raise InputError(
      "config.model.groups is 'joint' for a model with early exits",
      "'layer' or 'split', since an exit lies between any two layers",
      'set --config.model.groups=layer',
    )


def init_fusion(key: Array, spec: Spec, features: int) -> dict[str, Array]:
  """Draws column blocks of one fusion, {modality: [features, hidden]}."""
  fusion = layers.dense_init(key, len(spec.modalities) * features, spec.hidden)
  if spec.averages:
    # Of a mean every block makes all units, and not its share of a sum.
    fusion *= len(spec.modalities) ** 0.5
  blocks = jnp.split(fusion, len(spec.modalities))
  return dict(zip(spec.modalities, blocks, strict=True))


def init(key: Array, spec: Spec) -> list[PyTree]:
  """Draws the early exits, from the input on: {'fusion', 'bias', 'head'} each.

  Args:
    key: of the model.
    spec: of the model.
  """
  found = []
  for i, features in enumerate(spec.filters[:-1]):
    own = jax.random.fold_in(key, _EXITS + i)
    fusion_key, head_key = jax.random.split(own)
    found.append(
      {
        'fusion': init_fusion(fusion_key, spec, features),
        'bias': jnp.zeros(spec.hidden),
        'head': encoders.init_head(head_key, spec),
      }
    )
  return found


def groups(spec: Spec, own: ExitGroups) -> PyTree:
  """Builds the prefix tree of an exit's parameters, with group numbers."""
  return {
    'fusion': dict(zip(spec.modalities, own.column, strict=True)),
    'bias': own.shared,
    'head': own.shared,
  }


def logits(spec: Spec, params: PyTree, features, run: Array) -> Array:
  """Computes class scores of one exit, {m: [B, f]} -> [B, C].

  Args:
    spec: of the model.
    params: with the 'fusion', 'bias' and 'head' of the exit.
    features: of the modalities, pooled at its depth.
    run: [M] bool, modalities that are there.
  """
  blocks = [h @ params['fusion'][m] for m, h in features.items()]
  if spec.fusion == 'attention':
    there = np.array([spec.modalities.index(m) for m in features])
    z = attention.pool(params['attention'], blocks, jnp.asarray(run)[there])
  elif spec.fusion == 'mean':
    z = sum(blocks) / jnp.maximum(jnp.asarray(run).sum(), 1)
  else:
    z = encoders.fuse_norm(spec, sum(blocks), run)
  return encoders.head(params['head'], layers.bias(z, params['bias']))


def contained(number: Numbering, depth: int, every: bool) -> np.ndarray:
  """Marks the groups of the model cut at a depth, [G] bool.

  Args:
    number: of the groups.
    depth: layers of the encoders, from 1.
    every: with all exits up to there, and not only the last.
  """
  chosen = np.zeros(len(number.names), bool)
  for owners in number.layer:
    chosen[list(owners[:depth])] = True
  for at, own in number.exits.items():
    if at == depth or (every and at < depth):
      chosen[[*own.column, own.shared]] = True
  return chosen
