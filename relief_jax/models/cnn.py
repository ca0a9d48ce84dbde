"""Builds the full-parameter mode: 1-D CNN encoders, a fusion cut by columns.

h_m = phi_m(x_m), z = sum_m h_m @ W_m, logits = head(relu(z + b)). The fusion
weight W = [W_1 ... W_M] is kept as one leaf per modality, so that a column
block is a leaf and cohort means, elastic training and uploads need no slicing.
With `fusion='mean'` z is their mean over the modalities that are there. With
`fusion='attention'` it is a weighted mean (attention.py); W_m stays its
modality's, the queries that weigh them belong to the shared group, since they
compare modalities. With `fusion='dual_health_style'` (dual_health.py) the
weight of a modality follows from numbers of its own, which are in its group.
With `fusion='experts'` a mixture of experts stands between the sum and the head
(experts.py).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.budgets import widths
from relief_jax.engine import ambient
from relief_jax.models import (
  attention,
  counting,
  dual_health,
  encoders,
  exits,
  experts,
  split_points,
  trust,
)
from relief_jax.models.encoders import Numbering, Spec
from relief_jax.models.work_builder import WorkBuilder
from relief_jax.task import (
  Axes,
  Exits,
  SplitPoints,
  Task,
  Widths,
  Work,
)
from relief_jax.types import Array, PyTree


def init(key: Array, spec: Spec) -> PyTree:
  """Draws parameters: {'encoder': {m: …}, 'fusion': {m: W_m}, 'bias', 'head'}.

  With early exits also 'exit', a list of {'fusion', 'bias', 'head'}; with
  attention 'attention' [hidden, heads], zeros at first: the mean of what runs;
  with experts 'gate' and 'expert' (experts.py), with dual_health_style 'trust'
  and 'prototype' (dual_health.py).
  """
  encoder_key, fusion_key, head_key = jax.random.split(key, 3)
  params = {
    'encoder': {
      name: encoders.init_encoder(jax.random.fold_in(encoder_key, m), spec, m)
      for m, name in enumerate(spec.modalities)
    },
    'fusion': exits.init_fusion(fusion_key, spec, spec.features),
    'bias': jnp.zeros(spec.hidden),
    'head': encoders.init_head(head_key, spec),
  }
  if spec.fusion == 'attention':
    params['attention'] = jnp.zeros((spec.hidden, spec.heads))
  if spec.fusion == 'experts':
    params |= experts.init(key, spec)
  if spec.fusion == 'dual_health_style':
    params |= dual_health.init(key, spec.modalities, spec.classes, spec.hidden)
  return {**params, 'exit': exits.init(key, spec)} if spec.exits else params


def cnn(spec: Spec) -> Task:
  """Builds the full-parameter task.

  Args:
    spec: of the model.

  Raises:
    InputError: the window is too short for the convolutions, the groups are
      too coarse for early exits, or a fusion that does not fit.
  """
  exits.check(spec)
  attends = spec.fusion == 'attention'
  if spec.averages:
    attention.check(spec.fusion, spec.hidden, spec.heads, spec.fusion_norm)
  if spec.fusion == 'experts':
    spec.mixture.check()
  number = encoders.number_groups(spec, encoders_train=True)
  layers = len(spec.filters)
  groups = {
    'encoder': {
      name: list(number.layer[m]) for m, name in enumerate(spec.modalities)
    },
    **exits.groups(spec, number.exits[layers]),
  }
  ends: PyTree = {
    'encoder': {
      name: [i == 0 for i in range(layers)] for name in spec.modalities
    },
    'fusion': False,
    'bias': False,
    'head': True,
  }
  if attends:
    groups['attention'], ends['attention'] = number.shared, True
  trusts = spec.fusion == 'dual_health_style'
  if trusts:
    groups['trust'] = groups['fusion']
    groups['prototype'] = number.shared
    # Three numbers of a modality, and prototypes: no code of few bits.
    ends |= {'trust': True, 'prototype': True}
  if spec.fusion == 'experts':
    groups |= experts.groups(number.gate[0], number.expert)
    ends |= {'gate': False, 'expert': [False] * spec.mixture.number}
  if spec.exits:
    early = [exits.groups(spec, number.exits[d]) for d in range(1, layers)]
    groups['exit'] = early
    ends['exit'] = [{'fusion': False, 'bias': False, 'head': True}] * (
      layers - 1
    )
  whole = _until(spec, number, groups, layers, False)._replace(ends=ends)
  if spec.exits:
    every = _sizes(spec, groups, len(number.names))
    return whole._replace(
      work=dataclasses.replace(whole.work, size=every),
      submodels={
        'depth': Exits(
          contained=partial(exits.contained, number),
          until=partial(_until, spec, number, groups),
        )
      },
    )
  if spec.fusion == 'experts':
    return _mixture(spec, number, whole)
  if trusts:
    return trust.trusting(spec, whole, _sizes(spec, groups, whole.num_blocks))
  whole = whole._replace(submodels={'split': partial(_split_points, spec)})
  if attends:
    # Heads of attention share the units of the fusion out: no narrower form.
    return whole
  axes = _axes(spec)
  work = partial(_narrow_work, spec, number, groups, axes)
  width = Widths(_units(spec), axes, work)
  return whole._replace(submodels={**whole.submodels, 'width': width})


def _mixture(spec: Spec, number: Numbering, whole: Task) -> Task:
  """Adds the mixture to what the model says of itself."""
  own = experts.layer(spec, number)

  def fuse(params, frozen, features, run, skip=None):
    del frozen
    return experts.logits(spec, own, params, features, run, skip)

  def route(params, features, run):
    fused = experts.fused(spec, params, features, run)
    found = experts.probabilities(spec, params['gate'], fused, run)
    return found[:, None]

  def work(held):
    active = jnp.minimum(held[0], spec.mixture.top)
    load = active, active / jnp.maximum(held[0], 1)
    depths = (len(spec.filters),)
    return _flops(spec, number, _units(spec), depths, load).build(size)

  size = _sizes(spec, whole.groups, whole.num_blocks)
  gate = encoders.dense_flops(spec.hidden, spec.mixture.number)
  everything = dataclasses.replace(whole.work, size=size)
  return whole._replace(
    work=everything,
    fuse=lambda *given: fuse(*given)[0],
    skips=(len(spec.modalities),),
    submodels={
      'experts': experts.described(
        (own,),
        fuse=fuse,
        route=route,
        routing=dataclasses.replace(
          everything, shared=jnp.float32(gate + 2 * spec.hidden)
        ),
        work=work,
        parts=lambda params: [params],
        with_parts=lambda params, parts: parts[0],
      )
    },
  )


def _split_points(spec: Spec, task: Task) -> SplitPoints:
  """Finds where the encoders can be cut; the last layer's output is pooled."""

  def front(params, frozen, m, x, depth):
    del frozen
    own = params['encoder'][spec.modalities[m]][:depth]
    if depth == len(spec.filters):
      return encoders.encode(spec, own, x, 0)
    return [x, *encoders.activations(spec, own, x, 0)][-1]

  def rest(params, frozen, m, h, depth):
    del frozen
    own = params['encoder'][spec.modalities[m]][depth:]
    return encoders.encode(spec, own, h, 0) if own else h

  inputs = [counting.batch_of(v) for v in spec.example.values()]
  return split_points.find(task, front, rest, inputs)


def _until(spec, number, groups, depth, every) -> Task:
  """Builds the model of the encoders' first `depth` layers (`task.Exits`)."""
  depths = tuple(range(1, depth + 1)) if every else (depth,)

  def encode(params, frozen, m, x, cut):
    del frozen
    own = params['encoder'][spec.modalities[m]][:depth]
    if not every:
      return encoders.encode(spec, own, x, cut)
    found = encoders.activations(spec, own, x, cut)
    return tuple(h.mean(1) for h in found)

  def leave(params, d, features, run):
    own = params if d == len(spec.filters) else params['exit'][d - 1]
    return exits.logits(spec, own, features, run)

  def fuse(params, frozen, features, run):
    del frozen
    if not every:
      return leave(params, depth, features, run)
    each = [{m: h[d - 1] for m, h in features.items()} for d in depths]
    scores = [leave(params, d, each[d - 1], run) for d in depths]
    return jnp.stack(scores)

  num = len(number.names)
  size = _sizes(spec, groups, num) * exits.contained(number, depth, every)
  return Task(
    modalities=spec.modalities,
    blocks=number.blocks(depth),
    classes=spec.classes,
    features=(spec.filters[depth - 1],) * len(spec.modalities),
    groups=groups,
    work=_flops(spec, number, _units(spec), depths).build(size),
    init=lambda key: init(key, spec),
    encode=encode,
    cuts=depth,
    fuse=fuse,
  )


def _units(spec: Spec) -> tuple[int, ...]:
  """Lists the units of the encoders' layers, of the fusion, and the classes."""
  return spec.filters * len(spec.modalities) + (spec.hidden, spec.classes)


def _sizes(spec, groups, num) -> Array:
  shapes = jax.eval_shape(lambda: init(ambient.key(0), spec))
  return tree.group_sizes(groups, shapes, num)


def _flops(
  spec: Spec, number: Numbering, kept, depths, mixture=None
) -> WorkBuilder:
  """Computes the FLOPs of a sub-model.

  Args:
    spec: of the model.
    number: of its groups.
    kept: units as in `_units`, traced or not.
    depths: of the exits that run, the last one where the encoders end.
    mixture: experts for a sample, and the share of samples that each on the
      device gets; None for all of them.
  """
  layers = len(spec.filters)
  *filters, hidden, classes = kept
  work = WorkBuilder(len(spec.modalities), len(number.names))
  below: list[int] = []
  for m in range(len(spec.modalities)):
    own = filters[m * layers :][: depths[-1]]
    encoders.encoder_work(spec, number, work, m, own, depths)
    for d in depths:
      column = encoders.dense_flops(own[d - 1], hidden)
      work.fwd[m] += column + hidden
      work.wgrad[number.exits[d].column[m]] += column
      work.gradient_path(column, number.layer[m][:d])
    if spec.fusion == 'attention':
      _attention_work(spec, number, work, m)
    if spec.fusion == 'dual_health_style':
      trust.add_work(spec, number, work, m)
  for d in depths:
    last = encoders.dense_flops(hidden, classes)
    work.shared += last + 2 * hidden + 5 * classes
    work.wgrad[number.exits[d].shared] += last
    below = np.flatnonzero(exits.contained(number, d, False)).tolist()
    work.gradient_path(last + hidden, [*below, *number.expert, *number.gate])
    if spec.fusion == 'mean':
      work.shared += hidden
      columns = set(below) - {number.shared}
      work.gradient_path(hidden, columns)
  if spec.fusion == 'experts':
    load = mixture or spec.mixture.load
    experts.add_work(experts.layer(spec, number), work, below, *load)
  return work


def _narrow_work(spec, number, groups, axes, kept) -> Work:
  """Computes FLOPs and sizes of the sub-model of `kept` units.

  Traced or not.
  """
  shapes = jax.eval_shape(lambda: init(ambient.key(0), spec))
  sizes = tree.group_sum(
    groups, widths.sizes(axes, shapes, kept), len(number.names)
  )
  return _flops(spec, number, kept, (len(spec.filters),)).build(sizes)


def _attention_work(spec, number, work, m) -> None:
  """Adds the cost of one modality's part of the attention.

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
  """Numbers the layers of all leaves: encoders, then fusion, then classes."""
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
