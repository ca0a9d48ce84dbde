"""Makes pure functions of Flax modules, of `flax.nnx` and `flax.linen`.

A module may normalise by the statistics of the batch (BatchNorm): they are
computed anew in every batch, and no running mean is carried from step to step,
device to device or into the test. A module that draws (dropout) or keeps
anything else from call to call is refused.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import errors, linen, nnx, traverse_util

from relief_jax.engine import ambient
from relief_jax.errors import InputError
from relief_jax.types import Array, PyTree


class Piece(NamedTuple):
  """Holds a module as pure functions.

  Attributes:
    init: key -> {path: parameter}.
    shapes: of what it gives.
    apply: (parameters, *inputs, **named) -> output.
    target: the function whose signature it is.
    by_batch: it uses statistics of the batch.
  """

  init: Callable[[Array], dict[str, Array]]
  shapes: dict[str, jax.ShapeDtypeStruct]
  apply: Callable[..., PyTree]
  target: Callable[..., Any]
  by_batch: bool = False


def is_module(value: Any) -> bool:
  """Tells modules, and functions of rngs that make one, from the rest."""
  if isinstance(value, linen.Module | nnx.Module):
    return True
  made = value
  while isinstance(made, functools.partial):
    made = made.func
  if isinstance(made, type):
    return issubclass(made, nnx.Module)
  try:
    return 'rngs' in inspect.signature(value).parameters
  except (TypeError, ValueError):
    return False


def piece(
  module: Any, inputs: tuple[PyTree, ...], call: Mapping[str, Any]
) -> Piece:
  """Makes pure functions of one module.

  Args:
    module: of linen; of nnx, or a function of `rngs` -> nnx module. The
      parameters of an nnx module that is there already are the first ones of
      all runs, those of the others are drawn from the run's seed.
    inputs: shapes of its inputs.
    call: further named arguments of every call.

  Raises:
    InputError: something else, or a module that keeps or draws something.
  """
  if isinstance(module, linen.Module):
    return _linen(module, inputs, call)
  if isinstance(module, nnx.Module) or callable(module):
    return _nnx(module, call)
  raise InputError(
    f'a {type(module).__name__} for a model',
    'a module of flax.linen or flax.nnx, or a function rngs -> nnx module',
    'pass the module itself',
  )


def _changed(before: PyTree, after: PyTree) -> list[bool]:
  """Tells leaf by leaf which values a call has replaced."""
  pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
  return [a is not b for a, b in pairs]


def _keeps(name: str) -> InputError:
  return InputError(
    f'a module that keeps {name} from call to call',
    'one whose output follows from parameters and input',
    'leave it out: rounds hand on parameters alone',
  )


def _draws() -> InputError:
  return InputError(
    'a module that draws random numbers when called (dropout)',
    'one whose output follows from parameters and input: local steps hand no '
    'key to a model',
    'set its rate to 0, or call it with deterministic=True',
  )


def _frozen_mean() -> InputError:
  return InputError(
    'a BatchNorm that uses its running mean, which no round carries',
    'the statistics of each batch, or another norm',
    'set use_running_average=False, or take GroupNorm or LayerNorm',
  )


def _linen(module, inputs, call) -> Piece:
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), inputs)

  def variables(key):
    found = module.init(key, *zeros, **call)
    return {k: dict(v) for k, v in found.items()}

  shapes = jax.eval_shape(variables, ambient.key(0))
  for name in shapes:
    if name not in ('params', 'batch_stats'):
      raise _keeps(f'{name!r}')
  stats = jax.tree.map(
    lambda s: jnp.zeros(s.shape, s.dtype), shapes.get('batch_stats', {})
  )

  def flat(found):
    return traverse_util.flatten_dict(found.get('params', {}), sep='/')

  def apply(leaves, *inputs, **named):
    own = {'params': traverse_util.unflatten_dict(leaves, sep='/')}
    given: dict[str, Any] = {**named, **call}
    if stats:
      own['batch_stats'] = jax.tree.map(jnp.asarray, stats)
      given['mutable'] = ['batch_stats']
    try:
      out = module.apply(own, *inputs, **given)
    except errors.InvalidRngError:
      raise _draws() from None
    if not stats:
      return out
    out, after = out
    if not all(_changed(own['batch_stats'], after['batch_stats'])):
      raise _frozen_mean()
    return out

  return Piece(
    init=lambda key: flat(variables(key)),
    shapes=flat(shapes),
    apply=apply,
    target=module.__call__,
    by_batch=bool(stats),
  )


def _nnx(module, call) -> Piece:
  there = isinstance(module, nnx.Module)

  def split(rngs):
    own = module if there else module(rngs=rngs)
    if not isinstance(own, nnx.Module):
      raise InputError(
        f'a function that gives a {type(own).__name__} for a model',
        'a function rngs -> nnx module',
        'return the module',
      )
    return nnx.split(own, nnx.Param, ...)

  structure: Any = None

  def parts():
    nonlocal structure
    structure, params, rest = split(nnx.Rngs(0))
    return params, rest

  params, rest = jax.eval_shape(parts)
  variables = dict(nnx.to_flat_state(params))
  other = jax.tree.leaves(rest, is_leaf=lambda v: isinstance(v, nnx.Variable))
  target = nnx.merge(structure, params, rest).__call__
  values = jax.jit(lambda: parts()[1])() if other else rest

  def flat(found):
    return {_name(k): v.get_value() for k, v in nnx.to_flat_state(found)}

  def apply(leaves, *inputs, **named):
    state = nnx.from_flat_state(
      [(k, v.replace(leaves[_name(k)])) for k, v in variables.items()]
    )
    kept = jax.tree.map(jnp.asarray, values)
    before = jax.tree.leaves(kept)  # a call puts new values into `kept`
    own = nnx.merge(structure, state, kept)
    out = own(*inputs, **named, **call)
    if other:
      _, _, after = nnx.split(own, nnx.Param, ...)
      for variable, new in zip(other, _changed(before, after), strict=True):
        if isinstance(variable, nnx.BatchStat):
          if not new:
            raise _frozen_mean()
        elif new and isinstance(variable, nnx.RngState):
          raise _draws()
        elif new:
          raise _keeps(f'a {type(variable).__name__}')
    return out

  by_batch = any(isinstance(v, nnx.BatchStat) for v in other)
  return Piece(
    init=lambda key: flat(split(nnx.Rngs(key))[1]),
    shapes=flat(params),
    apply=apply,
    target=target,
    by_batch=by_batch,
  )


def _name(path: tuple) -> str:
  return '/'.join(map(str, path))
