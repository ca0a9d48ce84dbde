"""Trained models as .safetensors files: arrays under flat names, and facts.

A file holds all that predictions need and nothing of the data: `params.*`,
`frozen.*`, `inputs.mean.*`, `inputs.std.*` and `inputs.fill.*`. Its metadata
says `format`, `method`, `backbone`, `classes`, `modalities` and more, each as
JSON text.
"""

import json
import os
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from relief_jax import models, tree
from relief_jax.engine import ambient
from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.models.dual_health import Dual
from relief_jax.models.encoders import Spec
from relief_jax.models.mixture import Mixture
from relief_jax.runs.model import Model
from relief_jax.storage import records
from relief_jax.world import Inputs

FORMAT = 'relief_jax model 1'
_ENDING = '.safetensors'
# Kept as they are, beside `spec`, whose tuples JSON does not know.
_FACTS = (
  'method',
  'backbone',
  'round',
  'classes',
  'modalities',
  'fill',
  'ensemble',
  'personal',
)


def export(model: Model, path: str | os.PathLike) -> None:
  """Writes a model.

  Args:
    model: to write.
    path: of the file, which ends in .safetensors.

  Raises:
    InputError: another ending.
    StorageError: the folder cannot be written.
  """
  place = _path(path)
  arrays = {
    name: np.ascontiguousarray(leaf)
    for name, leaf in tree.named_leaves(_parts(model)).items()
  }
  facts = {name: getattr(model, name) for name in _FACTS}
  metadata = {
    'format': FORMAT,
    **{name: json.dumps(value) for name, value in facts.items()},
    'spec': json.dumps(model.spec._asdict()),
    'version': json.dumps(records.versions()['relief_jax']),
  }
  content = safetensors.numpy.save(arrays, metadata)
  with records.storing(place):
    place.parent.mkdir(parents=True, exist_ok=True)
  records.write_bytes(place, content)


def load_model(path: str | os.PathLike) -> Model:
  """Reads a model that `export` wrote; no data is needed.

  Args:
    path: of the file.

  Raises:
    InputError: no such file, or one that does not hold such a model.
  """
  place = _path(path)
  try:
    with safetensors.safe_open(place, 'numpy') as file:
      metadata = file.metadata() or {}
      found = {name: file.get_tensor(name) for name in file.keys()}
  except (OSError, safetensors.SafetensorError) as error:
    raise _refusal(place, str(error).splitlines()[0]) from error
  if metadata.get('format') != FORMAT:
    raise _refusal(place, f'format {metadata.get("format")!r}')
  try:
    facts = {name: json.loads(metadata[name]) for name in _FACTS}
    spec = Spec(**_hashable(json.loads(metadata['spec'])))
    spec = spec._replace(mixture=Mixture(*spec.mixture), dual=Dual(*spec.dual))
  except (KeyError, TypeError, ValueError) as error:
    raise _refusal(place, f'metadata without {error}') from error
  like = _like(facts['backbone'], spec)
  names = tree.named_leaves(like)
  wrong = names.keys() ^ found.keys() or {
    name
    for name, leaf in names.items()
    if not _fits(
      found[name], leaf, facts['personal'] and name.startswith('params.')
    )
  }
  if wrong:
    raise _refusal(place, f'an unfitting {min(wrong)}')
  leaves = [found[name] for name in names]
  parts = jax.tree.unflatten(jax.tree.structure(like), leaves)
  del facts['modalities']  # of the spec
  return Model(
    **facts | {'classes': tuple(facts['classes'])},
    spec=spec,
    params=parts['params'],
    frozen=parts['frozen'],
    inputs=Inputs(**parts['inputs']),
  )


def _hashable(value: Any) -> Any:
  """Gives JSON of a dict with tuples in place of all lists."""
  if isinstance(value, dict):
    return {k: _hashable(v) for k, v in value.items()}
  return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _parts(model: Model) -> dict[str, Any]:
  return {
    'params': model.params,
    'frozen': model.frozen,
    'inputs': model.inputs._asdict(),
  }


def _like(backbone: str, spec: Spec) -> dict[str, Any]:
  """Gives the shapes of a model's parts, those of one client."""
  with ambient.pinned():
    key = ambient.key(0)
    task = models.make(backbone, spec)
    params = jax.eval_shape(task.init, key)
    frozen = jax.eval_shape(task.base, key) if task.base else {}
  vector = {
    name: jax.ShapeDtypeStruct((channels,), np.float32)
    for name, channels in zip(spec.modalities, spec.channels, strict=True)
  }
  inputs = dict.fromkeys(Inputs._fields, vector)
  return {'params': params, 'frozen': frozen, 'inputs': inputs}


def _fits(found: np.ndarray, like, each: bool) -> bool:
  """Compares shapes and types; with `each` found has an axis of clients."""
  shape = found.shape[1:] if each else found.shape
  return shape == like.shape and found.dtype == like.dtype


def _path(path: str | os.PathLike) -> pathlib.Path:
  place = pathlib.Path(paths.expand(path, 'the path of a model'))
  if place.suffix != _ENDING:
    raise InputError(
      f'the file name {place.name}', f'a name that ends in {_ENDING}', 'add it'
    )
  return place


def _refusal(place: pathlib.Path, found: str) -> InputError:
  return InputError(
    f'{place}: {found}',
    'a model that relief_jax exported',
    'export it again: relief_jax.load(RUN).export(PATH)',
  )
