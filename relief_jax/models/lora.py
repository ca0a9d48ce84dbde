"""Builds the LoRA mode: a frozen base, adapters on a fusion cut by columns.

z = sum_m h_m @ W0_m + (alpha / r) * (sum_m h_m @ A_m) @ B, with the frozen W0
never merged: a merged W0 + A B would be a weight per client. The source
of the base, widths, r and alpha are **ours**.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.engine import ambient
from relief_jax.errors import InputError
from relief_jax.models import cnn, encoders, layers, lora_layers
from relief_jax.models.encoders import Spec
from relief_jax.models.work_builder import WorkBuilder
from relief_jax.task import LowRank, Ranks, Task
from relief_jax.types import Array, PyTree


def init(key: Array, spec: Spec) -> PyTree:
  """Draws trained parameters: A ~ Kaiming, B = 0, adapters that change nothing.

  The head is fresh, or zero where the base has one: training starts from that.
  """
  a_key, head_key, adapter_key = jax.random.split(key, 3)
  a = layers.dense_init(a_key, len(spec.modalities) * spec.features, spec.rank)
  blocks = jnp.split(a, len(spec.modalities))
  params = {
    'lora_a': dict(zip(spec.modalities, blocks, strict=True)),
    'lora_b': jnp.zeros((spec.rank, spec.hidden)),
    'head': lora_layers.zero_head(
      encoders.init_head(head_key, spec), spec.base_head
    ),
  }
  if spec.adapters:
    params['adapter'] = {
      name: _init_adapters(jax.random.fold_in(adapter_key, m), spec, m)
      for m, name in enumerate(spec.modalities)
    }
  return params


def _init_adapters(key, spec, m):
  sizes = (spec.channels[m],) + spec.filters
  return [
    {
      'a': layers.dense_init(
        jax.random.fold_in(key, i), spec.kernel * sizes[i], spec.rank
      ).T,
      'b': jnp.zeros((spec.rank, sizes[i + 1])),
    }
    for i in range(len(spec.filters))
  ]


def freeze(params: PyTree, head: bool = False) -> PyTree:
  """Takes the frozen base from full parameters.

  Args:
    params: of `cnn.init`.
    head: with the head; else a fresh one is trained (`Spec.base_head`).
  """
  kept = ('encoder', 'fusion', 'bias') + ('head',) * head
  return {k: params[k] for k in kept}


def lora(spec: Spec) -> Task:
  """Builds the LoRA task; its frozen base is `freeze(cnn.init(...))`.

  Args:
    spec: of the model; with `cached` the bank holds the frozen encoders'
      features and `encode` passes them on.

  Raises:
    ValueError: cached features together with adapters in the encoders.
    InputError: the window is too short for the convolutions, or attention:
      adapters are of the sum.
  """
  if spec.fusion != 'concat':
    raise InputError(
      f'config.model.fusion={spec.fusion} with config.backbone=lora',
      "'concat': its adapters belong to the layer that sums the modalities",
      'set --config.backbone=cnn, or --config.model.fusion=concat',
    )
  if spec.cached and spec.adapters:
    raise ValueError('features change while adapters train: not cacheable')
  number = encoders.number_groups(spec, encoders_train=spec.adapters)
  scale = spec.lora_alpha / spec.rank

  def encode(params, frozen, m, x, cut):
    if spec.cached:
      return x
    name = spec.modalities[m]
    adapters = params['adapter'][name] if spec.adapters else None
    return encoders.encode(spec, frozen['encoder'][name], x, cut, adapters)

  def fuse(params, frozen, features, run):
    base = sum(h @ frozen['fusion'][m] for m, h in features.items())
    down = sum(h @ params['lora_a'][m] for m, h in features.items())
    z = encoders.fuse_norm(spec, base + scale * (down @ params['lora_b']), run)
    head = lora_layers.whole_head(params, frozen, spec.base_head)
    return encoders.head(head, layers.bias(z, frozen['bias']))

  groups = {
    'lora_a': dict(zip(spec.modalities, number.column, strict=True)),
    'lora_b': number.shared,
    'head': number.shared,
  }
  ends: PyTree = {'lora_a': False, 'lora_b': False, 'head': True}
  if spec.adapters:
    groups['adapter'] = {
      name: list(number.layer[m]) for m, name in enumerate(spec.modalities)
    }
    ends['adapter'] = {
      name: [i == 0 for i in range(len(spec.filters))]
      for name in spec.modalities
    }
  work = _work(spec, number, groups)
  return Task(
    modalities=spec.modalities,
    blocks=number.blocks(),
    classes=spec.classes,
    features=(spec.filters[-1],) * len(spec.modalities),
    groups=groups,
    work=work,
    init=lambda key: init(key, spec),
    encode=encode,
    cuts=0 if spec.cached else len(spec.filters),
    fuse=fuse,
    # Adapters inside the encoders are no product of two factors of a weight.
    submodels={} if spec.adapters else {'rank': _ranks(spec, work.size)},
    ends=ends,
    base=lambda key: base(key, spec),
  )


def _ranks(spec: Spec, size: Array) -> Ranks:
  """Describes the adapter of the fusion."""
  layer = LowRank(
    tuple(f'lora_a/{m}' for m in spec.modalities),
    'lora_b',
    tuple(f'fusion/{m}' for m in spec.modalities),
  )
  return Ranks(
    (layer,),
    spec.rank,
    spec.lora_alpha,
    work=lambda each: dataclasses.replace(
      lora(spec._replace(rank=each[0])).work, size=size
    ),
  )


def whole(spec: Spec) -> tuple[Task, Callable[[PyTree], PyTree]]:
  """Gives the model whose parameters the base is, and what freezes them.

  Args:
    spec: of the model with adapters.
  """
  full = cnn.cnn(spec._replace(cached=False, adapters=False))
  return full, functools.partial(freeze, head=spec.base_head)


def base(key: Array, spec: Spec) -> PyTree:
  """Draws a random frozen base."""
  return freeze(cnn.init(key, spec), spec.base_head)


def _work(spec, number, groups):
  num = len(number.names)
  # The device runs the frozen encoders whether or not the simulator caches
  # their features, so its FLOPs are those of the uncached model.
  device = spec._replace(cached=False)
  work = WorkBuilder(len(spec.modalities), num)
  column = encoders.dense_flops(spec.features, spec.hidden)
  down = encoders.dense_flops(spec.features, spec.rank)
  up = encoders.dense_flops(spec.rank, spec.hidden)
  for m in range(len(spec.modalities)):
    encoders.encoder_work(device, number, work, m)
    work.fwd[m] += column + down + spec.hidden + spec.rank
    work.wgrad[number.column[m]] += down
    work.gradient_path(column + down, set(number.layer[m]))
  last = encoders.dense_flops(spec.hidden, spec.classes)
  work.shared += up + last + 4 * spec.hidden + 5 * spec.classes
  work.wgrad[number.shared] += up + last
  below = [g for g in range(num) if g != number.shared]
  work.gradient_path(up + spec.rank, below)
  work.gradient_path(last + 2 * spec.hidden, range(num))
  shapes = jax.eval_shape(lambda: init(ambient.key(0), spec))
  return work.build(tree.group_sizes(groups, shapes, num))
