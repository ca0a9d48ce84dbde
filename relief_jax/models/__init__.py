"""Builds models: one file each, `Spec -> Task`.

A model of your own is such a function, `--config.backbone=FILE.py:NAME`.
`from_flax` and `from_functions` make a task of modules or functions (own.py):

    def my_model(spec):
      return models.from_flax(
        lambda rngs: MyModule(spec.classes, rngs=rngs), spec
      )
"""

import functools
from collections.abc import Callable

from relief_jax import plugins
from relief_jax.errors import InputError
from relief_jax.models import (
  assembly,
  char_mlp,
  cnn,
  counting,
  criteria,
  image_cnn,
  lora,
  transformer,
)
from relief_jax.models.encoders import Spec
from relief_jax.models.layers import convolution
from relief_jax.models.lora_layers import Adapters
from relief_jax.models.own import from_flax, from_functions
from relief_jax.scoring import targets
from relief_jax.task import Task

__all__ = [
  'MODELS',
  'Adapters',
  'convolution',
  'find',
  'from_flax',
  'from_functions',
  'make',
]

MODELS: dict[str, Callable[[Spec], Task]] = {
  'char_mlp': char_mlp.char_mlp,
  'cnn': cnn.cnn,
  'image_cnn': image_cnn.image_cnn,
  'lora': lora.lora,
  'transformer': transformer.transformer,
}

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


def make(name: str, spec: Spec, memory: bool = False) -> Task:
  """Builds the model of a name.

  Args:
    name: as `find`.
    spec: of the model.
    memory: count what its training takes, where nobody has (`Task.memory`).

  Raises:
    InputError: there is none of that name, or it cannot be so.
  """
  factory = find(name)
  if factory not in MODELS.values():
    return _own(name, factory, spec)
  if spec.fusion not in ('concat', 'attention') and factory is not cnn.cnn:
    blocks = spec.fusion == 'experts' and name == 'transformer'
    raise InputError(
      f'config.model.fusion={spec.fusion} with config.backbone={name}',
      "'cnn': this fusion stands behind its encoders",
      'set --config.backbone=cnn, or --config.model.fusion=concat'
      + ' and --config.model.experts.blocks=1' * blocks,
    )
  if spec.mixture.blocks and factory is not transformer.transformer:
    raise InputError(
      f'config.model.experts.blocks={spec.mixture.blocks} with '
      f'config.backbone={name}',
      "'transformer', whose blocks these are",
      'set --config.backbone=transformer, or --config.model.experts.blocks=0; '
      'experts of a cnn are --config.model.fusion=experts',
    )
  if spec.fusion == 'dual_health_style' and spec.targets != targets.CLASSES:
    raise InputError(
      f'config.model.fusion={spec.fusion} for data whose targets are '
      f'{spec.targets}',
      'data of classes, which have prototypes',
      'set --config.model.fusion=attention',
    )
  task = aimed(factory(spec), spec.targets)
  if memory and task.memory is None:
    task = task._replace(memory=counting.memory(task, spec.example))
  return task


def aimed(task: Task, kind: str) -> Task:
  """Gives a model of classes another kind of targets, and their usual loss.

  Args:
    task: one that says nothing of its targets.
    kind: of the data's targets.
  """
  if task.targets == kind or task.criterion:
    return task
  loss = criteria.find('', kind)
  # Sub-models of a depth are tasks of their own, with a loss of classes.
  kept = {k: v for k, v in task.submodels.items() if k != 'depth'}
  return task._replace(criterion=loss.criterion, targets=kind, submodels=kept)


@functools.lru_cache(maxsize=8)
def _own(name: str, factory: Callable[[Spec], Task], spec: Spec) -> Task:
  """Builds a user's model once: it is traced for its costs and checks."""
  task = assembly.tried(name, lambda: factory(spec))
  if not isinstance(task, Task):
    raise InputError(
      f'config.backbone={name}, which gives a {type(task).__name__}',
      'a Task',
      'return models.from_flax(module, spec), say',
    )
  task = aimed(task, spec.targets)
  about = [(v.modalities, v.classes, v.targets) for v in (task, spec)]
  if about[0] != about[1]:
    model, data = (f'{", ".join(m)} and {n} {k}' for m, n, k in about)
    raise InputError(
      f'config.backbone={name}, a model of {model} for data of {data}',
      'as many of each as the data have, by the same names',
      'pass spec for the example, and spec.classes to the last layer',
    )
  if task.memory is None:
    task = task._replace(memory=counting.memory(task, spec.example))
  return task
