"""Builds models: one file each, `Spec -> Task`."""

from collections.abc import Callable

from relief_jax import plugins
from relief_jax.models import cnn, lora
from relief_jax.models.encoders import Spec
from relief_jax.task import Task

MODELS: dict[str, Callable[[Spec], Task]] = {'cnn': cnn.cnn, 'lora': lora.lora}

KIND = plugins.Kind(
  'model',
  'backbone',
  'relief_jax.models',
  MODELS,
  'a function (spec) that gives a Task',
  plugins.takes(1),
)


def find(name: str) -> Callable[[Spec], Task]:
  """Looks up a model.

  Args:
    name: in `MODELS`, or outside of this package (`plugins.py`).

  Raises:
    InputError: there is none of that name.
  """
  return plugins.find(KIND, name)


def make(name: str, spec: Spec) -> Task:
  """Builds the model of a name.

  Args:
    name: as `find`.
    spec: of the model.

  Raises:
    InputError: there is none of that name, or it cannot be so.
  """
  return find(name)(spec)
