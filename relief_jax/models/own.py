"""Makes tasks of models that users bring: Flax modules, or plain functions.

A model is in *one piece*, or a *chain* of stages per modality and a head. Of a
chain the backward pass ends at the lowest stage that trains, as on a device. Of
one piece it is computed whole and masked; what is charged is what a device
would compute (counting.py).

Inputs and features come as {modality: [B, ...]}; those of one modality alone
as the array itself. A function with an argument `run` gets [M] bool, the
modalities that are there; an absent one's input (of one piece) or features (of
a chain) are zeros, unless the method fills it in.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.engine import ambient
from relief_jax.errors import InputError
from relief_jax.models import (
  assembly,
  counting,
  criteria,
  flax_modules,
  lora_layers,
)
from relief_jax.models.criteria import Criterion
from relief_jax.models.encoders import Spec
from relief_jax.models.lora_layers import Adapters
from relief_jax.models.parts import Cut, Model, Stage
from relief_jax.models.patterns import Patterns
from relief_jax.task import Ranks, Task, Work
from relief_jax.types import Array, PyTree

Example = Spec | Mapping[str, Any] | Any


class _Inputs(NamedTuple):
  """Holds the modalities of a model, shapes of a batch of each, and targets."""

  modalities: tuple[str, ...]
  shapes: tuple[jax.ShapeDtypeStruct, ...]
  classes: int
  targets: str


def from_flax(
  module: Any,
  example: Example,
  *,
  head: Any = None,
  blocks: Mapping[str, Patterns] | None = None,
  modality: Mapping[str, str] | None = None,
  frozen: Patterns | Adapters = (),
  loss: str | Criterion = '',
  call: Mapping[str, Any] | None = None,
) -> Task:
  """Makes a task of modules of `flax.nnx` or `flax.linen`.

  Args:
    module: in one piece: a module (flax_modules.py). As a chain: a sequence of
      modules and plain functions, the last module the head; or {modality: such
      a sequence without a head}.
    example: the `Spec` that a run hands over, or inputs (arrays or shapes with
      a leading axis), as a dict by modality or of one modality alone.
    head: of {modality: sequence}: features, `run` -> logits.
    blocks: {name: patterns of parameters} (patterns.py); None: a block per
      stage, or per child of a module in one piece. Parameters of a chain are
      named `stage0/...` or `MODALITY/0/...`, and `head/...`.
    modality: {block: whose sensor's owners have it, '' for everybody's}; by
      default a block whose name ends in a modality belongs to it, and of one
      modality alone all but the block nearest the output.
    frozen: patterns of parameters that never train; or `Adapters`: all but
      these are frozen as the module has them, which one that was built already
      brings along.
    loss: `softmax` or `sigmoid` of classes, `next_token` (logits [B, T, V], y
      [B, T], tokens below 0 do not count), `squared_error` (output and y [B,
      D]), or a function (output, y, weight [B]) -> []. '': the usual one of
      the data's targets.
    call: further named arguments of every call.

  Raises:
    InputError: whatever is wrong with the model, before anything is compiled.
  """
  inputs = _inputs(example)
  named = dict(call or {})
  if head is None and not isinstance(module, Sequence | Mapping):
    model = _one_module(module, inputs, named)
  else:
    model = _chain_of_modules(_chains(module, head, inputs), inputs, named)
  cut = Cut(blocks, modality, frozen)
  return _task(model, inputs, cut, loss)


def from_functions(
  init: Callable[[Array], PyTree],
  apply: Callable[..., Array] | Mapping[str, Callable[..., PyTree]],
  example: Example,
  *,
  blocks: Mapping[str, Patterns] | None = None,
  modality: Mapping[str, str] | None = None,
  frozen: Patterns | Adapters = (),
  loss: str | Criterion = '',
) -> Task:
  """Makes a task of a pair of pure functions.

  Args:
    init: key -> parameters, a pytree.
    apply: (parameters, inputs) -> output [B, C]; or, of one modality, a chain
      {child of the parameters: (its parameters, what comes in) -> what goes
      out}, the head last.
    example: as in `from_flax`, and so are the others.
    blocks: as there.
    modality: as there.
    frozen: as there.
    loss: as there.

  Raises:
    InputError: as there.
  """
  inputs = _inputs(example)
  shapes = assembly.tried('init', lambda: jax.eval_shape(init, _key()))
  if isinstance(apply, Mapping):
    model = _chain_of_functions(init, apply, shapes, inputs)
  else:
    model = Model(
      init=lambda key: _named(init(key)),
      encoders=(),
      head=Stage('', _unnamed(apply, shapes)),
      takes_run=_takes_run(apply),
    )
  cut = Cut(blocks, modality, frozen)
  return _task(model, inputs, cut, loss)


def _task(
  model, inputs, cut, loss, each: Mapping[str, int] | None = None
) -> Task:
  own, bare = cut.frozen, model
  if isinstance(own, Adapters):
    model, frozen = lora_layers.adapt(model, own, each)
    cut = cut._replace(frozen=frozen)
  task = assembly.assemble(
    model,
    inputs.modalities,
    inputs.shapes,
    cut,
    criteria.find(loss, inputs.targets),
    inputs.classes,
  )
  if not isinstance(own, Adapters):
    return task

  found = lora_layers.adapted(task.groups)

  def work(each: tuple[int, ...]) -> Work:
    by_name = {v.base[0]: r for v, r in zip(found, each, strict=True)}
    whole = cut._replace(frozen=own)
    other = _task(bare, inputs, whole, loss, by_name).work
    return dataclasses.replace(other, size=task.work.size)

  ranks = Ranks(found, own.rank, own.alpha, work)
  return task._replace(submodels={**task.submodels, 'rank': ranks})


def _key() -> jax.ShapeDtypeStruct:
  return jax.eval_shape(lambda: ambient.key(0))


def _inputs(example: Example) -> _Inputs:
  classes, kind = 0, ''
  found: Any = example
  if isinstance(example, Spec):
    found, classes = example.example, example.classes
    kind = example.targets
  elif not isinstance(example, Mapping):
    found = {'input': example}
  for name, value in found.items():
    if not hasattr(value, 'shape') or not value.shape:
      raise InputError(
        f'an example input {name!r} of type {type(value).__name__}',
        'an array or a shape with a leading axis of samples',
        'pass jnp.zeros((1, ...)), or spec',
      )
  return _Inputs(
    tuple(found),
    tuple(counting.batch_of(value) for value in found.values()),
    classes,
    kind,
  )


def _one_module(module, inputs, call) -> Model:
  given = assembly.given(inputs.modalities, inputs.shapes)
  piece = _piece('the model', module, given, call)
  return Model(
    init=piece.init,
    encoders=(),
    head=Stage('', piece.apply),
    takes_run=_takes_run(piece.target),
    by_batch=piece.by_batch,
  )


def _piece(name, module, given, call) -> flax_modules.Piece:
  return assembly.tried(
    name, lambda: flax_modules.piece(module, (given,), call)
  )


def _chains(module, head, inputs) -> tuple[dict[str, list[Any]], Any]:
  """Finds the stages of every modality, and the head."""
  if isinstance(module, Mapping):
    if set(module) != set(inputs.modalities) or head is None:
      raise InputError(
        f'stages of {", ".join(module)}'
        + (' without a head' if head is None else ''),
        f'a sequence of stages of {", ".join(inputs.modalities)}, and `head`',
        'pass {modality: [stages]} and head=module',
      )
    return {m: list(module[m]) for m in inputs.modalities}, head
  stages = list(module) if isinstance(module, Sequence) else [module]
  if head is None and stages:
    head = stages.pop()
  if len(inputs.modalities) > 1 or not stages:
    raise InputError(
      f'one chain of {len(stages)} stages and a head for '
      f'{len(inputs.modalities)} modalities',
      'a stage at least, and a chain for each modality',
      'pass {modality: [stages]} and head=module, or a module in one piece',
    )
  return {inputs.modalities[0]: stages}, head


class _Chain(NamedTuple):
  """Holds the stages of a modality as pure functions.

  Attributes:
    stages: of it.
    inits: {prefix: key -> {path: parameter}}.
    features: shape of a batch of what comes out.
    by_batch: one of them uses statistics of the batch.
  """

  stages: tuple[Stage, ...]
  inits: dict[str, Callable[..., Any]]
  features: PyTree
  by_batch: bool


def _chain_of_modules(chains, inputs, call) -> Model:
  stages, head = chains
  alone = len(inputs.modalities) == 1
  every = [
    _chain(stages[m], 'stage' if alone else f'{m}/', shape, call)
    for m, shape in zip(inputs.modalities, inputs.shapes, strict=True)
  ]
  features = tuple(chain.features for chain in every)
  given = assembly.given(inputs.modalities, features)
  last = _piece('head', head, given, call)
  inits: dict[str, Callable[..., Any]] = {}
  for chain in every:
    inits |= chain.inits
  inits['head'] = last.init

  def init(key):
    found = {}
    for i, (prefix, own) in enumerate(inits.items()):
      leaves = own(jax.random.fold_in(key, i))
      found |= {f'{prefix}/{path}': leaf for path, leaf in leaves.items()}
    return found

  return Model(
    init=init,
    encoders=tuple(chain.stages for chain in every),
    head=Stage('head', last.apply),
    takes_run=_takes_run(last.target),
    by_batch=last.by_batch or any(chain.by_batch for chain in every),
  )


def _chain(parts, start: str, shape, call) -> _Chain:
  """Makes stages of modules; a plain function goes with the one before it."""
  found: list[Stage] = []
  inits, by_batch = {}, False
  before = None  # functions that come first
  for part in parts:
    if not flax_modules.is_module(part):
      shape = assembly.tried(
        'a stage', functools.partial(jax.eval_shape, part, shape)
      )
      if found:
        found[-1] = Stage(found[-1].prefix, _then(found[-1].apply, part))
      else:
        before = _then(before, part) if before else lambda _, x, f=part: f(x)
      continue
    prefix = f'{start}{len(found)}'
    piece = _piece(prefix, part, shape, call)
    shape = assembly.tried(
      prefix,
      functools.partial(jax.eval_shape, piece.apply, piece.shapes, shape),
    )
    apply = piece.apply
    if before:
      apply, before = _after(before, apply), None
    inits[prefix] = piece.init
    by_batch |= piece.by_batch
    found.append(Stage(prefix, apply))
  return _Chain(tuple(found), inits, shape, by_batch)


def _then(first, second):
  return lambda leaves, x: second(first(leaves, x))


def _after(before, apply):
  return lambda leaves, x: apply(leaves, before({}, x))


def _chain_of_functions(init, apply, shapes, inputs) -> Model:
  lacking = [name for name in apply if name not in shapes]
  if len(inputs.modalities) > 1 or lacking or len(apply) < 2:
    raise InputError(
      f'a chain of {", ".join(apply)} for {len(inputs.modalities)} modalities '
      f'and parameters of {", ".join(shapes)}',
      'of one modality: two stages at least, named as children of the '
      'parameters',
      'correct the names, or pass one function for all',
    )
  *names, head = apply
  return Model(
    init=lambda key: _named(init(key)),
    encoders=(tuple(Stage(n, _unnamed(apply[n], shapes[n])) for n in names),),
    head=Stage(head, _unnamed(apply[head], shapes[head])),
    takes_run=_takes_run(apply[head]),
  )


def _named(params: PyTree) -> dict[str, Array]:
  """Gives {path: leaf} of a pytree."""
  found = tree.named_leaves(params, '/')
  return {path: jnp.asarray(leaf) for path, leaf in found.items()}


def _unnamed(apply, shapes):
  """Lets a function of a pytree take {path: leaf}."""
  paths, structure = tree.named_leaves(shapes, '/'), jax.tree.structure(shapes)

  def named(own, *inputs, **more):
    found = jax.tree.unflatten(structure, [own[path] for path in paths])
    return apply(found, *inputs, **more)

  return named


def _takes_run(function: Callable) -> bool:
  try:
    return 'run' in inspect.signature(function).parameters
  except (TypeError, ValueError):
    return False
