"""Builds the CNN of public image set-ups, for images [height, width, channels].

Convolutions of 3x3 taps, 32 and 64, unpadded, max-pool 2, dense 128, dense C,
ReLU in between: that of pfl-research, arXiv:2404.06430, and of others, without
dropout. Also an example of a model of one's own (docs/model.md).
"""

import functools
from functools import partial

from flax import nnx

from relief_jax.errors import InputError
from relief_jax.models import own
from relief_jax.models.encoders import Spec
from relief_jax.models.layers import convolution
from relief_jax.task import Task
from relief_jax.types import Array

_FILTERS = (32, 64)
_HIDDEN = 128
_LEAST = 6  # pixels on a side: two convolutions, and two to pool


def _pooled(x: Array) -> Array:
  """Takes the largest of 2x2 neighbours, [B, h, w, c] -> [B, h', w', c]."""
  batch, height, width, channels = x.shape
  h, w = height // 2, width // 2
  cut = x[:, : 2 * h, : 2 * w].reshape(batch, h, 2, w, 2, channels)
  return cut.max((2, 4))


def _flat(x: Array) -> Array:
  return x.reshape(x.shape[0], -1)


@functools.lru_cache(maxsize=8)
def image_cnn(spec: Spec) -> Task:
  """Builds the task; a block per layer.

  Args:
    spec: of the model.

  Raises:
    InputError: inputs that are no images of one modality.
  """
  shape = spec.inputs[0] if spec.inputs else ()
  if len(spec.inputs) != 1 or len(shape) != 3 or min(shape[:2]) < _LEAST:
    raise InputError(
      f'inputs of shape {list(shape or spec.channels)} of '
      f'{len(spec.modalities)} modalities for backbone=image_cnn',
      f'images [height, width, channels] of one, {_LEAST} pixels at least',
      'take another --config.backbone',
    )
  height, width, channels = shape
  Conv = partial(
    nnx.Conv,
    kernel_size=(3, 3),
    padding='VALID',
    conv_general_dilated=convolution,
  )
  first, second = _FILTERS
  features = (height - 4) // 2 * ((width - 4) // 2) * second
  chain = [
    partial(Conv, channels, first),
    nnx.relu,
    partial(Conv, first, second),
    nnx.relu,
    _pooled,
    _flat,
    partial(nnx.Linear, features, _HIDDEN),
    nnx.relu,
    partial(nnx.Linear, _HIDDEN, spec.classes),
  ]
  return own.from_flax(chain, spec)
