"""Full-parameter mode: 1-D CNN encoders and a fusion cut by columns.

h_m = phi_m(x_m), z = sum_m h_m @ W_m, logits = head(relu(z + b)). The fusion
weight W = [W_1 ... W_M] is kept as one leaf per modality, so that a column
block is a leaf and cohort means, elastic training and uploads need no slicing.
"""

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.models import encoders, layers
from relief_jax.models.encoders import Spec
from relief_jax.types import Array, PyTree, Task


def init(key: Array, spec: Spec) -> PyTree:
  """Parameters: {'encoder': {m: …}, 'fusion': {m: W_m}, 'bias', 'head'}."""
  encoder_key, fusion_key, head_key = jax.random.split(key, 3)
  fusion = layers.dense_init(
    fusion_key, len(spec.modalities) * spec.features, spec.hidden
  )
  blocks = jnp.split(fusion, len(spec.modalities))
  return {
    'encoder': {
      name: encoders.init_encoder(jax.random.fold_in(encoder_key, m), spec, m)
      for m, name in enumerate(spec.modalities)
    },
    'fusion': dict(zip(spec.modalities, blocks, strict=True)),
    'bias': jnp.zeros(spec.hidden),
    'head': encoders.init_head(head_key, spec),
  }


def cnn(spec: Spec) -> Task:
  """The full-parameter task.

  Args:
    spec: of the model.

  Raises:
    InputError: the window is too short for the convolutions.
  """
  number = encoders.number_groups(spec, encoders_train=True)

  def encode(params, frozen, m, x, cut):
    del frozen
    return encoders.encode(spec, params['encoder'][spec.modalities[m]], x, cut)

  def fuse(params, frozen, features, run):
    del frozen
    z = sum(h @ params['fusion'][m] for m, h in features.items())
    z = encoders.fuse_norm(spec, z, run)
    return encoders.head(params['head'], layers.bias(z, params['bias']))

  groups = {
    'encoder': {
      name: list(number.layer[m]) for m, name in enumerate(spec.modalities)
    },
    'fusion': dict(zip(spec.modalities, number.column, strict=True)),
    'bias': number.shared,
    'head': number.shared,
  }
  return Task(
    modalities=spec.modalities,
    group_names=number.names,
    group_modality=number.modality,
    groups=groups,
    work=_work(spec, number, groups),
    init=lambda key: init(key, spec),
    encode=encode,
    cuts=len(spec.filters),
    layer_groups=number.layer,
    fuse=fuse,
  )


def _work(spec, number, groups):
  num = len(number.names)
  work = encoders.WorkBuilder(len(spec.modalities), num)
  column = encoders.dense_flops(spec.features, spec.hidden)
  for m in range(len(spec.modalities)):
    encoders.encoder_work(spec, number, work, m)
    work.fwd[m] += column + spec.hidden
    work.wgrad[number.column[m]] += column
    work.gradient_path(column, set(number.layer[m]))
  last = encoders.dense_flops(spec.hidden, spec.classes)
  work.shared += last + 2 * spec.hidden + 5 * spec.classes
  work.wgrad[number.shared] += last
  work.gradient_path(last + spec.hidden, range(num))
  shapes = jax.eval_shape(lambda: init(jax.random.key(0), spec))
  return work.build(tree.group_sizes(groups, shapes, num))
