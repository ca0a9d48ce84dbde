"""Describes the model that a config asks for and its data need."""

import ml_collections

from relief_jax import algorithms
from relief_jax.clients import sensor_faults
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError
from relief_jax.models import transformer
from relief_jax.models.dual_health import Dual
from relief_jax.models.encoders import Spec
from relief_jax.models.mixture import Mixture


def describe(
  config: ml_collections.ConfigDict, data: Windows, pretrained: bool
) -> Spec:
  """Describes the model of a config for its data.

  Args:
    config: of the run.
    data: whose shapes and classes it has.
    pretrained: the frozen base, with its head.

  Raises:
    InputError: faults of sensors over time for inputs that have none.
  """
  model = config.model
  shapes = [tuple(x.shape[1:]) for x in data.x.values()]
  spec = Spec(
    modalities=tuple(data.x),
    channels=tuple(1 if data.text else x.shape[-1] for x in data.x.values()),
    width=data.width,
    classes=len(data.classes),
    filters=tuple(model.filters),
    kernel=model.kernel,
    stride=model.stride,
    hidden=model.hidden,
    rank=model.rank,
    lora_alpha=model.lora_alpha,
    groups=model.groups,
    adapters=model.adapters and config.backbone == 'lora',
    base_head=model.base_head and (pretrained or bool(model.weights)),
    fusion_norm=config.fusion_norm,
    exits=config.backbone == 'cnn' and algorithms.facts(config.method).exits,
    fusion=model.fusion,
    heads=model.heads,
    dual=Dual(**model.dual),
    mixture=Mixture(**model.experts),
    inputs=() if all(len(s) == 2 for s in shapes) else tuple(shapes),
    lora=tuple(model.lora),
    weights=model.weights,
    targets=data.targets,
    vocabulary=len(data.vocabulary),
    **transformer.sizes(model.transformer, shapes[0]),
  )
  timeless = spec.inputs and [
    level for level in sensor_faults.TIMED if config.sensor_faults[level]
  ]
  if timeless:
    raise InputError(
      f'config.sensor_faults.{timeless[0]} for inputs of shape '
      f'{list(spec.inputs[0])}',
      'windows [time, channels]',
      f'set --config.sensor_faults.{timeless[0]}=0',
    )
  # Features of windows that every device sees in its own way are not shared.
  own = any(config.sensor_faults[level] for level in sensor_faults.LEVELS)
  cacheable = config.backbone == 'lora' and not spec.adapters and not own
  return spec._replace(cached=cacheable and model.cache_features)
