"""Full-parameter mode: 1-D CNN encoders and a fusion cut by columns.

h_m = phi_m(x_m), z = sum_m h_m @ W_m, logits = head(relu(z + b)). The fusion
weight W = [W_1 ... W_M] is kept as one leaf per modality, so that a column
block is a leaf and cohort means, elastic training and uploads need no slicing.
With `fusion='attention'` z is a weighted mean of the h_m @ W_m (attention.py);
W_m stays its modality's, the queries that weigh them belong to the shared
group, since they compare modalities.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree, widths
from relief_jax.models import attention, encoders, layers
from relief_jax.models.encoders import Spec
from relief_jax.types import Array, Axes, PyTree, Task, Widths, Work


def init(key: Array, spec: Spec) -> PyTree:
  """Parameters: {'encoder': {m: …}, 'fusion': {m: W_m}, 'bias', 'head'}.

  And 'attention': [hidden, heads], zeros at first: the mean of what runs.
  """
  encoder_key, fusion_key, head_key = jax.random.split(key, 3)
  fusion = layers.dense_init(
    fusion_key, len(spec.modalities) * spec.features, spec.hidden
  )
  if spec.fusion == 'attention':
    # Of a mean every block makes all units, and not its share of a sum.
    fusion *= len(spec.modalities) ** 0.5
  blocks = jnp.split(fusion, len(spec.modalities))
  params = {
    'encoder': {
      name: encoders.init_encoder(jax.random.fold_in(encoder_key, m), spec, m)
      for m, name in enumerate(spec.modalities)
    },
    'fusion': dict(zip(spec.modalities, blocks, strict=True)),
    'bias': jnp.zeros(spec.hidden),
    'head': encoders.init_head(head_key, spec),
  }
  if spec.fusion == 'attention':
    params['attention'] = jnp.zeros((spec.hidden, spec.heads))
  return params


def cnn(spec: Spec) -> Task:
  """The full-parameter task.

  Args:
    spec: of the model.

  Raises:
    InputError: the window is too short for the convolutions, or attention
      that does not fit.
  """
  attends = spec.fusion == 'attention'
  if attends:
    attention.check(spec.hidden, spec.heads, spec.fusion_norm)
  number = encoders.number_groups(spec, encoders_train=True)

  def encode(params, frozen, m, x, cut):
    del frozen
    return encoders.encode(spec, params['encoder'][spec.modalities[m]], x, cut)

  def fuse(params, frozen, features, run):
    del frozen
    blocks = [h @ params['fusion'][m] for m, h in features.items()]
    if attends:
      there = np.array([spec.modalities.index(m) for m in features])
      run = jnp.asarray(run)[there]
      z = attention.pool(params['attention'], jnp.stack(blocks), run)
    else:
      z = encoders.fuse_norm(spec, sum(blocks), run)
    return encoders.head(params['head'], layers.bias(z, params['bias']))

  groups = {
    'encoder': {
      name: list(number.layer[m]) for m, name in enumerate(spec.modalities)
    },
    'fusion': dict(zip(spec.modalities, number.column, strict=True)),
    'bias': number.shared,
    'head': number.shared,
  }
  ends: PyTree = {
    'encoder': {
      name: [i == 0 for i in range(len(spec.filters))]
      for name in spec.modalities
    },
    'fusion': False,
    'bias': False,
    'head': True,
  }
  if attends:
    groups['attention'], ends['attention'] = number.shared, True
  units = spec.filters * len(spec.modalities) + (spec.hidden, spec.classes)
  axes = _axes(spec)
  work = partial(_work, spec, number, groups, axes)
  return Task(
    modalities=spec.modalities,
    group_names=number.names,
    group_modality=number.modality,
    groups=groups,
    work=work(units),
    init=lambda key: init(key, spec),
    encode=encode,
    cuts=len(spec.filters),
    layer_groups=number.layer,
    fuse=fuse,
    # Heads of attention share the units of the fusion out: no narrower form.
    widths=None if attends else Widths(units, axes, work),
    ends=ends,
  )


def _work(spec, number, groups, axes, kept) -> Work:
  """FLOPs and sizes of the sub-model of `kept` units, traced or not."""
  num, depth = len(number.names), len(spec.filters)
  attends = spec.fusion == 'attention'
  *filters, hidden, classes = kept
  work = encoders.WorkBuilder(len(spec.modalities), num)
  for m in range(len(spec.modalities)):
    own = filters[m * depth : (m + 1) * depth]
    column = encoders.dense_flops(own[-1], hidden)
    encoders.encoder_work(spec, number, work, m, own)
    work.fwd[m] += column + hidden
    work.wgrad[number.column[m]] += column
    work.gradient_path(column, set(number.layer[m]))
    if attends:
      _attention_work(spec, number, work, m)
  last = encoders.dense_flops(hidden, classes)
  work.shared += last + 2 * hidden + 5 * classes
  work.wgrad[number.shared] += last
  work.gradient_path(last + hidden, range(num))
  shapes = jax.eval_shape(lambda: init(jax.random.key(0), spec))
  sizes = widths.sizes(axes, shapes, kept)
  return work.build(tree.group_sum(groups, sizes, num))


def _attention_work(spec, number, work, m) -> None:
  """Adds what one modality's part of the attention costs.

  The gradient of the queries is counted for all modalities, also on a device
  that lacks some: a work is per group, and it is a thousandth of an encoder's.
  """
  product = encoders.dense_flops(spec.hidden, spec.heads)
  work.fwd[m] += product + 5 * spec.heads + spec.hidden
  work.wgrad[number.shared] += product
  # To the weights, and from there to the scores.
  work.gradient_path(2 * spec.hidden + 4 * spec.heads, range(len(number.names)))
  # From scores and weights to the projection, through the tanh.
  below = {number.column[m], *number.layer[m]}
  work.gradient_path(product + 5 * spec.hidden, below)


def _axes(spec: Spec) -> PyTree:
  """Layers are numbered through the encoders, then fusion, then classes."""
  depth = len(spec.filters)
  fusion = depth * len(spec.modalities)

  def convolution(m, i):
    layer = m * depth + i
    below = layer - 1 if i else None
    return {
      'w': Axes(((layer, 1), (below, spec.kernel)), layer),
      'b': Axes(((layer, 1),), layer),
    }

  def column(m):
    return Axes((((m + 1) * depth - 1, 1), (fusion, 1)), fusion)

  axes = {
    'encoder': {
      name: [convolution(m, i) for i in range(depth)]
      for m, name in enumerate(spec.modalities)
    },
    'fusion': {name: column(m) for m, name in enumerate(spec.modalities)},
    'bias': Axes(((fusion, 1),), fusion),
    'head': {
      'w': Axes(((fusion, 1), (fusion + 1, 1)), fusion + 1),
      'b': Axes(((fusion + 1, 1),), fusion + 1),
    },
  }
  if spec.fusion == 'attention':
    axes['attention'] = Axes(((fusion, 1), (None, 1)), fusion)
  return axes
