"""Assembles the task of a user's model: blocks, costs, forward pass, checks."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import extend

from relief_jax.engine import ambient
from relief_jax.errors import InputError
from relief_jax.models import (
  counting,
  criteria,
  layers,
  parts,
  patterns,
  split_points,
)
from relief_jax.models.parts import Cut, Model, Stage
from relief_jax.scoring import targets
from relief_jax.task import SplitPoints, Task
from relief_jax.types import Array, PyTree


def given(modalities: Sequence[str], values: Sequence[PyTree]) -> PyTree:
  """Gives inputs or features as a model takes them: one alone is no dict."""
  if len(modalities) == 1:
    return values[0]
  return dict(zip(modalities, values, strict=True))


def tried(name: str, function: Callable[[], Any]) -> Any:
  """Calls the user's code; whatever is wrong there is told in one line.

  Raises:
    InputError: it raised something.
  """
  try:
    return function()
  except InputError:
    raise
  except Exception as error:  # whatever is wrong there
    text = str(error).strip().partition('\n')[0]
    raise InputError(
      f'{name}, which raises {type(error).__name__}: {text}',
      'a model that can be called with such inputs',
      'call it alone, with jax.eval_shape, and mend what it says',
    ) from error


def assemble(
  model: Model,
  modalities: tuple[str, ...],
  inputs: tuple[jax.ShapeDtypeStruct, ...],
  cut: Cut,
  loss: criteria.Loss,
  classes: int,
) -> Task:
  """Assembles a task.

  Args:
    model: as functions.
    modalities: [M] names.
    inputs: [M] shapes of a batch.
    cut: what trains, and in which blocks.
    loss: of the training.
    classes: C, V or D of the data; 0: not known yet.

  Raises:
    InputError: what is wrong with it.
  """
  key = jax.eval_shape(lambda: ambient.key(0))
  shapes = tried('the model', lambda: jax.eval_shape(model.init, key))
  trained = patterns.thaw(shapes, cut.frozen)
  owner = patterns.divide(trained, parts.wanted(model, trained, cut.blocks))
  names = tuple(
    dict.fromkeys([*(cut.blocks or ()), *parts.in_order(model, owner)])
  )
  groups = {path: names.index(owner[path]) for path in trained}
  params = {path: shapes[path] for path in trained}
  frozen = {path: shapes[path] for path in shapes if path not in params}
  cuts = max(map(len, model.encoders), default=0)
  encode = partial(_encode, model, cuts)

  def forward(params, frozen, values):
    found = {
      m: encode(params, frozen, i, values[i], 0)
      for i, m in enumerate(modalities)
    }
    everybody = jnp.ones(len(modalities), bool)
    scores = _fuse(model, modalities, (), params, frozen, found, everybody)
    return scores, list(found.values())

  traced, (scores, features) = _traced(forward, params, frozen, inputs)
  _check_output(scores, classes, loss.targets, inputs)
  again = extend.core.jaxpr_as_fun(traced)

  def whole(params, frozen, values):
    found, *_ = again(*jax.tree.leaves((params, frozen, values)))
    y, weight = targets.zeros(loss.targets, scores), jnp.ones(counting.BATCH)
    return loss.criterion(found, y, weight)

  counted = tried(
    'the loss',
    lambda: counting.count(whole, params, frozen, inputs, groups, len(names)),
  )
  sensor = parts.sensors(model, modalities, names, owner, counted.order, cut)
  edges = counted.order[0], counted.order[-1]
  return Task(
    modalities=modalities,
    blocks=parts.blocks(model, modalities, names, owner, sensor, counted.order),
    groups=groups,
    work=counted.work,
    init=lambda key: {p: v for p, v in model.init(key).items() if p in params},
    encode=encode,
    cuts=cuts,
    fuse=partial(_fuse, model, modalities, features),
    submodels={'split': partial(_split_points, model, inputs)}
    if model.encoders
    else {},
    ends={path: g in edges for path, g in groups.items()},
    classes=scores.shape[-1],
    features=_widths(features) if model.encoders else (),
    base=(lambda key: {p: v for p, v in model.init(key).items() if p in frozen})
    if frozen
    else None,
    criterion=loss.criterion,
    targets=loss.targets,
    memory=counted.memory,
    by_batch=model.by_batch,
    notes=_notes(model, _text(traced)),
  )


def _notes(model: Model, text: str) -> tuple[str, ...]:
  found = []
  if not model.encoders:
    found.append(
      'the model is in one piece: a device is charged for the backward pass of '
      'what it trains, but the simulation computes all of it and masks the '
      'rest. A chain of stages saves that time (models.from_flax)'
    )
  if model.by_batch:
    found.append(
      'BatchNorm uses the statistics of each batch, in the test too, and no '
      'running mean is carried: a prediction depends on the batch that it is '
      'in. GroupNorm or LayerNorm avoid that'
    )
  if 'conv_general_dilated' in text:
    found.append(
      'convolutions of XLA are many times slower on CPU inside the loop over '
      'clients: hand Flax the other form, nnx.Conv(..., '
      'conv_general_dilated=models.convolution)'
    )
  return tuple(found)


def _below(leaves: Mapping[str, Array], prefix: str) -> dict[str, Array]:
  """Takes the parameters of a stage, by the names that it knows."""
  if not prefix:
    return dict(leaves)
  start = prefix + '/'
  return {
    path.removeprefix(start): leaf
    for path, leaf in leaves.items()
    if path.startswith(start)
  }


def _own(
  stage: Stage, params, frozen, stopped: bool = False
) -> dict[str, Array]:
  """Gives all parameters of a stage; `stopped`: without their gradient."""
  trained = layers.stop_below(_below(params, stage.prefix), stopped)
  return _below(frozen, stage.prefix) | trained


def _encode(model: Model, cuts: int, params, frozen, m: int, x, cut: int):
  """Encodes by a chain; a model in one piece takes inputs as they are."""
  if not model.encoders:
    return x
  chain = model.encoders[m]
  for i, stage in enumerate(chain, cuts - len(chain)):
    x = stage.apply(_own(stage, params, frozen, i < cut), x)
  return x


def _split_points(model: Model, inputs, task: Task) -> SplitPoints:
  """Finds where a chain can be cut; a shorter one ends at the last point."""

  def through(stages, params, frozen, x):
    for stage in stages:
      x = stage.apply(_own(stage, params, frozen), x)
    return x

  def at(m, depth):
    return max(depth - task.cuts + len(model.encoders[m]), 0)

  def front(params, frozen, m, x, depth):
    return through(model.encoders[m][: at(m, depth)], params, frozen, x)

  def rest(params, frozen, m, x, depth):
    return through(model.encoders[m][at(m, depth) :], params, frozen, x)

  return split_points.find(task, front, rest, inputs)


def _fuse(model: Model, modalities, shapes, params, frozen, features, run):
  """Computes logits; what is left out of the program is zeros."""
  count = len(jax.tree.leaves(features)[0])

  def zeros(shape):
    return jnp.zeros((count, *shape.shape[1:]), shape.dtype)

  every = [
    features[m] if m in features else jax.tree.map(zeros, shapes[i])
    for i, m in enumerate(modalities)
  ]
  own = _own(model.head, params, frozen)
  named = {'run': jnp.asarray(run)} if model.takes_run else {}
  return model.head.apply(own, given(modalities, every), **named)


def _widths(features: Sequence[PyTree]) -> tuple[int, ...]:
  """Gives d_m where all features are [B, d_m], else ()."""
  ranks = [getattr(f, 'ndim', 0) for f in features]
  if any(rank != 2 for rank in ranks):
    return ()
  return tuple(f.shape[-1] for f in features)


def _traced(forward, params, frozen, inputs) -> tuple[Any, PyTree]:
  """Traces the forward pass, as a device computes it.

  A module's own Python takes most of the time, so nothing traces it again but
  the check that it is the same model when called again.

  Returns:
    Its jaxpr, and the shapes of its results.

  Raises:
    InputError: it is another model.
  """

  def trace():
    again = partial(forward)  # else the first trace would be given again
    with layers.bare():
      return jax.make_jaxpr(again, return_shape=True)(
        params, frozen, list(inputs)
      )

  (first, shapes), (second, _) = (tried('the model', trace) for _ in range(2))
  same = _text(first) == _text(second) and all(
    np.array_equal(a, b)
    for a, b in zip(first.consts, second.consts, strict=True)
  )
  if not same:
    raise InputError(
      'a model that computes something else when it is called again',
      'a function of parameters and inputs alone',
      'draw and count nothing in it; what it needs belongs into parameters',
    )
  return first, shapes


def _text(traced: Any) -> str:
  """Prints a program without the addresses of its functions."""
  return re.sub('0x[0-9a-f]+', '', str(traced))


def _check_output(output: Any, classes: int, kind: str, inputs) -> None:
  """Refuses what is no output for such targets, [B, C], [B, T, V], [B, D]."""
  if kind == targets.TOKENS and len(inputs[0].shape) != 2:
    raise InputError(
      f'inputs of shape {list(inputs[0].shape)} for a loss of tokens',
      'tokens, int32 [batch, T]',
      'hand over such an example, or take another loss',
    )
  middle = [inputs[0].shape[1]] if kind == targets.TOKENS else []
  sizes = {targets.CLASSES: 'classes', targets.TOKENS: 'vocabulary'}
  last = classes or sizes.get(kind, 'numbers')
  named = {targets.NUMBERS: ''}.get(kind, 'logits, ')
  expected = f'{named}float [{", ".join(map(str, ["batch", *middle, last]))}]'
  if (
    not hasattr(output, 'shape')
    or output.ndim != targets.axes(kind)
    or list(output.shape[:-1]) != [counting.BATCH, *middle]
    or not jnp.issubdtype(output.dtype, jnp.floating)
  ):
    shape = (
      f'{output.dtype} of shape {list(output.shape)}'
      if hasattr(output, 'shape')
      else f'a {type(output).__name__}'
    )
    raise InputError(
      f'a model whose output is {shape} for a batch of {counting.BATCH}',
      expected,
      'return a number for each target'
      if kind == targets.NUMBERS
      else 'return the scores of every class, without a soft-max',
    )
  if classes and output.shape[-1] != classes:
    found = {
      targets.CLASSES: f'{output.shape[-1]} classes for data of {classes}, '
      f'labels 0 to {classes - 1}',
      targets.TOKENS: f'{output.shape[-1]} tokens for a vocabulary of '
      f'{classes}, 0 to {classes - 1}',
      targets.NUMBERS: f'{output.shape[-1]} numbers for {classes} to predict',
    }
    raise InputError(
      f'a model of {found[kind]}',
      expected,
      'build its last layer with spec.classes units',
    )
