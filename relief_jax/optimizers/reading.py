"""Reads the local optimiser of a config, and refuses what means nothing."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.interpreters import partial_eval

from relief_jax.errors import InputError, unknown
from relief_jax.optimizers import OPTIMIZERS, Factory, Optimizer, find, key
from relief_jax.types import PyTree

_BELOW_ONE = ('b1', 'b2', 'b3', 'decay', 'momentum', 'rho')
_RATE = 'learning_rate'
_USUAL_MOMENTUM = 0.9


def read(config: ml_collections.ConfigDict) -> Optimizer:
  """Reads the local optimiser of a config.

  Raises:
    InputError: an unknown one, arguments that it does not take, or a schedule
      that means nothing.
  """
  factory = find(config.client_optimizer)
  given = arguments(config.client_optimizer_args)
  known = _known(config.client_optimizer, factory)
  for name, value in given.items():
    _check_argument(config.client_optimizer, known, name, value)
  _check_momentum(config)
  _check_schedule(config)
  traced, fixed = [], []
  for name, value in given.items():
    whole = isinstance(known[name], bool | int)
    if whole or _begins_with(factory, name, value):
      fixed.append((name, value))
    else:
      traced.append(name)
  if config.client_optimizer not in OPTIMIZERS:
    _check_alone(config.client_optimizer, factory, given)
  schedule = config.lr_schedule
  if schedule == 'exponential' and config.hparams.lr_decay == 1:
    schedule = 'constant'
  return Optimizer(
    config.client_optimizer,
    tuple(sorted(traced)),
    tuple(sorted(fixed)),
    schedule,
    config.hparams.lr_warmup > 0,
  )


def values(config: ml_collections.ConfigDict) -> dict[str, float]:
  """Gives the traced arguments of a config's optimiser, by hyperparameter."""
  given = arguments(config.client_optimizer_args)
  return {key(name): float(given[name]) for name in read(config).traced}


def arguments(text: str) -> dict[str, Any]:
  """Parses arguments, numbers or switches.

  >>> arguments('b1=0.8; nesterov=True')
  {'b1': 0.8, 'nesterov': True}

  Raises:
    InputError: text of another form.
  """
  found: dict[str, Any] = {}
  for part in filter(None, (part.strip() for part in text.split(';'))):
    name, equals, value = (v.strip() for v in part.partition('='))
    read = _value(value)
    if not equals or not name or read is None or name in found:
      raise InputError(
        f'config.client_optimizer_args={text!r}',
        'NAME=NUMBER, NAME=True or NAME=False, each name once, separated by ;',
        "set --config.client_optimizer_args='b1=0.9;weight_decay=0.01', say",
      )
    found[name] = read
  return found


def _value(text: str) -> bool | int | float | None:
  if text in ('True', 'False'):
    return text == 'True'
  for kind in (int, float):
    try:
      value = kind(text)
    except ValueError:
      continue
    return value if math.isfinite(value) else None
  return None


def _known(name: str, factory: Factory) -> dict[str, Any]:
  """Gives the arguments that can be set, and their defaults."""
  found = {
    p.name: p.default
    for p in inspect.signature(factory).parameters.values()
    if p.name != _RATE
    and (p.default is None or isinstance(p.default, bool | int | float))
    and not p.name.endswith(('dtype', 'mask'))
  }
  if name == 'momentum':
    del found['momentum']
  return found


def _check_argument(optimizer, known, name, value) -> None:
  found = f'{name}={value} in config.client_optimizer_args'
  if name == _RATE or (optimizer == 'momentum' and name == 'momentum'):
    key = 'client_lr' if name == _RATE else 'client_momentum'
    raise InputError(
      found, f'hparams.{key} for that', f'set --config.hparams.{key}={value}'
    )
  if name not in known:
    raise unknown(
      f'argument of the local optimiser {optimizer}', name, tuple(known)
    )
  switch, default = isinstance(value, bool), known[name]
  if isinstance(default, bool):
    fits, expected = switch, 'True or False'
  elif isinstance(default, int):
    fits, expected = isinstance(value, int) and not switch, 'a whole number'
  elif name in _BELOW_ONE:
    fits = not switch and 0 <= value < 1
    expected = 'a number from 0 and below 1'
  else:
    fits, expected = not switch and value >= 0, 'a number from 0'
  if not fits:
    raise InputError(found, expected, f'correct it; by default it is {default}')


def _begins_with(factory: Factory, name: str, value: float) -> bool:
  """Tells whether an argument is part of what the state begins with."""
  x = np.ones(2, np.float32)
  return any(_needed(lambda v: factory(1.0, **{name: v}).init(x), value))


def _needed(function: Callable[..., PyTree], *args: PyTree) -> list[bool]:
  """Tells which leaves of its arguments a function reads, by tracing it.

  No device is used: how many there are may not be settled yet.
  """
  traced = jax.make_jaxpr(function)(*args).jaxpr
  _, needed = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
  return needed


def _check_momentum(config) -> None:
  momentum = config.hparams.client_momentum
  if config.client_optimizer != 'momentum' and momentum not in (
    0,
    _USUAL_MOMENTUM,
  ):
    raise InputError(
      f'config.hparams.client_momentum={momentum:g} with '
      f'client_optimizer={config.client_optimizer}, which does not use it',
      'client_optimizer=momentum',
      "set that, or an argument of the optimiser's own in "
      '--config.client_optimizer_args',
    )


def _check_schedule(config) -> None:
  kind, values = config.lr_schedule, config.hparams
  decays, floor, every = values.lr_decay, values.lr_floor, values.lr_every
  geometric = kind in ('exponential', 'step')
  found = ''
  if decays != 1 and not geometric:
    found, expected = f'lr_decay={decays:g}', 'exponential or step'
    cure = 'set --config.hparams.lr_decay=1'
  elif kind == 'step' and (decays == 1 or not every):
    found = f'lr_decay={decays:g} and lr_every={every:g}'
    expected = 'a factor below 1, and the rounds between two falls'
    cure = 'set --config.hparams.lr_decay=0.1 --config.hparams.lr_every=20'
  elif kind != 'step' and every:
    found, expected = f'lr_every={every:g}', 'step'
    cure = 'set --config.hparams.lr_every=0'
  elif floor and (kind == 'constant' or (geometric and decays == 1)):
    found, expected = f'lr_floor={floor:g}', 'a rate that falls'
    cure = 'set --config.lr_schedule=cosine, or --config.hparams.lr_floor=0'
  elif values.lr_warmup >= config.rounds:
    found, expected = f'lr_warmup={values.lr_warmup:g}', 'fewer than the rounds'
    cure = f'lower it; the run has --config.rounds={config.rounds}'
  elif every > config.rounds:
    found, expected = f'lr_every={every:g}', 'at most the rounds'
    cure = f'lower it; the run has --config.rounds={config.rounds}'
  if found:
    raise InputError(
      f'config.hparams.{found} with lr_schedule={kind}', expected, cure
    )


def _check_alone(name: str, factory: Factory, given: dict[str, Any]) -> None:
  """Refuses what is no optimiser, or mixes parameters with each other."""
  own, others = (np.ones(n, np.float32) for n in (2, 3))

  def step(own, others):
    """Makes two steps; gives that of one of the parameters."""
    params, tx = {'own': own, 'others': others}, factory(0.1, **given)
    updates, state = params, tx.init(params)
    for _ in range(2):
      updates, state = tx.update(params, state, params)
    return updates['own']

  try:
    same = not _needed(step, own, others)[1]
  except Exception as error:  # whatever is wrong there
    text = str(error).strip().partition('\n')[0]
    raise InputError(
      f'config.client_optimizer={name}, which raises '
      f'{type(error).__name__}: {text}',
      'optax: init(params), update(gradients, state, params)',
      'call it alone on a small tree, and mend what it says',
    ) from error
  if not same:
    raise InputError(
      f'config.client_optimizer={name}, whose step of a parameter depends on '
      'the other parameters',
      'one that looks at each parameter by itself: a device trains only some',
      'leave out what runs over all of them, such as clip_by_global_norm',
    )
