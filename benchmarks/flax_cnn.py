"""The built-in sensor CNN as a user would write it: a chain of Flax modules."""

import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx

from relief_jax import models
from relief_jax.models.encoders import Spec
from relief_jax.task import Task
from relief_jax.types import PyTree


class Head(nnx.Module):
  """Fuses features and scores classes."""

  def __init__(self, spec: Spec, rngs: nnx.Rngs):
    """Draws a column of the fusion for every modality, and the head."""
    column = functools.partial(
      nnx.Linear, spec.features, spec.hidden, use_bias=False, rngs=rngs
    )
    self.fusion = nnx.Dict({m: column() for m in spec.modalities})
    self.bias = nnx.Param(jnp.zeros(spec.hidden))
    self.out = nnx.Linear(spec.hidden, spec.classes, rngs=rngs)

  def __call__(self, features):
    """Computes logits, [B, C]."""
    z = sum(self.fusion[m](h) for m, h in features.items())
    bias = jnp.broadcast_to(self.bias.get_value(), z.shape)
    return self.out(nnx.relu(z + bias))


def stages(spec: Spec, channels: int) -> list:
  """Lists the stages of an encoder."""
  sizes = (channels, *spec.filters)
  conv = functools.partial(
    nnx.Conv,
    kernel_size=(spec.kernel,),
    strides=spec.stride,
    padding='VALID',
    conv_general_dilated=models.convolution,
  )
  found = []
  for before, after in zip(sizes, sizes[1:], strict=False):
    found += [functools.partial(conv, before, after), nnx.relu]
  return [*found, lambda h: h.mean(1)]


def copy(spec: Spec) -> Task:
  """Builds the copy, in the built-in's blocks."""
  encoders = {
    m: stages(spec, c)
    for m, c in zip(spec.modalities, spec.channels, strict=True)
  }
  blocks: dict[str, Any] = {f'encoder/{m}': m for m in spec.modalities}
  blocks |= {f'fusion/{m}': f'head/fusion/{m}' for m in spec.modalities}
  blocks['shared'] = ('head/bias', 'head/out')
  head = functools.partial(Head, spec)
  return models.from_flax(encoders, spec, head=head, blocks=blocks)


def converted(spec: Spec, params: PyTree) -> dict:
  """Gives parameters of the built-in model by the copy's names."""
  found = {
    'head/bias': params['bias'],
    'head/out/kernel': params['head']['w'],
    'head/out/bias': params['head']['b'],
  }
  for m in spec.modalities:
    found[f'head/fusion/{m}/kernel'] = params['fusion'][m]
    for i, layer in enumerate(params['encoder'][m]):
      shape = spec.kernel, -1, layer['b'].size
      found[f'{m}/{i}/kernel'] = layer['w'].T.reshape(shape)
      found[f'{m}/{i}/bias'] = layer['b']
  return found
