"""Counts predictions, on held-out persons and on devices' own windows.

A device is tested with the model that it holds after a round (a narrower,
shallower or masked one, or one of its own) and with the sensors that it owns;
the server's whole model is tested beside it, with every sensor set. Labels
never touch the input side: confusion matrices are counted after the
predictions. Scores of the counts: scores.py.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.clients import sensor_faults
from relief_jax.types import (
  Array,
  Fleet,
  HeldOut,
  OwnWindows,
  PyTree,
  SubModels,
  Task,
)


class Counts(NamedTuple):
  """Holds the counts of an evaluation; `C` classes, `Z` persons on no device.

  Attributes:
    whole: [S, Z, C, C] int32, confusion matrices of the server's model for
      every tested sensor set, rows are true classes; [N, S, Z, C, C] of
      personal models.
    exits: [X, S, Z, C, C] of each exit alone; () without.
    held: [V, S', Z, C, C] of the sub-models that devices hold, for the sensor
      sets of the fleet; () where all hold the whole.
    model_index: [N] int32 as in `SubModels`, () likewise.
    own: [N, 3, C] int32, on each device's own later windows: how often a class
      was predicted correctly, was predicted, and was true; () without such.
  """

  whole: Array
  exits: Array | tuple = ()
  held: Array | tuple = ()
  model_index: Array | tuple = ()
  own: Array | tuple = ()


def subsets(owned: np.ndarray, rare: int) -> np.ndarray:
  """Lists the modality subsets that are tested, [S, M] bool, no repetition.

  Those of the fleet, all on, the rare one alone, and all without one of them,
  each in turn.

  Args:
    owned: [N, M] bool.
    rare: number of the rare modality.
  """
  num = owned.shape[1]
  alone = np.eye(num, dtype=bool)[rare]
  extra = [np.ones(num, bool)[None], alone[None]]
  if num > 1:
    extra.append(~np.eye(num, dtype=bool))
  return np.unique(np.concatenate([owned, *extra]), axis=0)


class Scope(NamedTuple):
  """Describes what is static about an evaluation; hashable.

  Attributes:
    tested: [S][M] bools, modality subsets that are tested, from `subsets`.
    owned: [S] bools, those that some device owns.
    persons: Z, persons on no device.
    fill: `input` or `skip`: a model trained on filled inputs is tested with
      the same filling.
  """

  tested: tuple[tuple[bool, ...], ...]
  owned: tuple[bool, ...]
  persons: int
  fill: str

  @property
  def masks(self) -> np.ndarray:
    """`tested` as an array, [S, M] bool."""
    return np.array(self.tested)

  @property
  def of_fleet(self) -> np.ndarray:
    """`owned` as an array, [S] bool."""
    return np.array(self.owned)


def scope(owned: np.ndarray, rare: int, persons: int, fill: str) -> Scope:
  """Collects the static facts of an evaluation.

  Args:
    owned: [N, M] bool.
    rare: number of the rare modality.
    persons: Z.
    fill: `input` or `skip`.
  """
  masks = subsets(owned, rare)
  sets = np.unique(owned, axis=0)
  of_fleet = (masks[:, None] == sets[None]).all(-1).any(1)
  tested = tuple(map(tuple, masks.tolist()))
  return Scope(tested, tuple(of_fleet.tolist()), persons, fill)


def evaluate(
  task: Task,
  params: PyTree,
  frozen: PyTree,
  tests: HeldOut,
  fleet: Fleet,
  scope: Scope,
  held: SubModels | None = None,
) -> Counts:
  """Tests the server's model, and the sub-models that devices hold.

  Args:
    task: the server's model.
    params: P.
    frozen: parameters that never train.
    tests: windows.
    fleet: [N] devices.
    scope: of the evaluation.
    held: None where every device holds the server's model.
  """
  whole = confusions(
    task, params, frozen, tests, scope, jnp.asarray(scope.masks)
  )
  exits: Array | tuple = ()
  if whole.ndim == 5:
    whole, exits = whole[0], whole[1:]
  found = Counts(whole, exits)
  index, models = jnp.zeros(fleet.id.shape, jnp.int32), [(task, params)]
  if held is not None:
    index = held.model_index
    models += list(held.models)
    every = [
      _held(model, v, index, frozen, tests, fleet, scope)
      for v, model in enumerate(held.models, 1)
    ]
    found = found._replace(held=jnp.stack(every), model_index=index)
  if tests.own is not None:
    found = found._replace(
      own=own_counts(models, index, frozen, tests.own, fleet, scope.fill)
    )
  return found


def _held(model, v, index, frozen, tests, fleet, scope) -> Array:
  """Computes confusion matrices of sub-model number v, [S', Z, C, C]."""
  sets = jnp.asarray(scope.masks[scope.of_fleet])
  # A sub-model that nobody holds is not run, nor an encoder that none of its
  # devices has.
  need = (fleet.owned & (index == v)[:, None]).any(0)

  def run():
    found = confusions(*model, frozen, tests, scope, sets, need)
    return found[0] if found.ndim == 5 else found

  return jax.lax.cond(need.any(), run, lambda: tree.zeros_like_output(run))


def evaluate_personal(
  task: Task,
  params: PyTree,
  frozen: PyTree,
  tests: HeldOut,
  fleet: Fleet,
  scope: Scope,
) -> Counts:
  """Tests a model per device, one after the other.

  Args: as `evaluate`, with params [N, *P]; absent sensors are skipped.
  """
  scope = scope._replace(fill='skip')
  whole = jax.lax.map(
    lambda params: confusions(
      task, params, frozen, tests, scope, jnp.asarray(scope.masks)
    ),
    params,
  )
  if tests.own is None:
    return Counts(whole)
  own = tests.own

  def one(row):
    params, rows, count, device = row
    real = jnp.arange(rows.size) < count
    alone = jax.tree.map(lambda v: v[None], device)
    at = jnp.zeros(rows.shape, jnp.int32)
    return _count_own(
      [(task, params)],
      jnp.zeros(1, jnp.int32),
      frozen,
      own,
      alone,
      scope.fill,
      (rows, at, real),
    )[0]

  counted = jax.lax.map(one, (params, own.rows, own.count, fleet))
  return Counts(whole, own=counted)


def confusions(
  task: Task,
  params: PyTree,
  frozen: PyTree,
  tests: HeldOut,
  scope: Scope,
  masks: Array,
  need: Array | None = None,
  batch: int = 256,
) -> Array:
  """Computes a confusion matrix per modality subset and person.

  [S, Z, C, C] int32.

  Encoders run once per window; subsets only fuse. Of a task that gives the
  logits of X exits (`types.Exits`) [1 + X, S, Z, C, C]: first of their mean,
  then of each.

  Args:
    task: the model.
    params: P.
    frozen: parameters that never train.
    tests: windows; own ones are not looked at.
    scope: of the evaluation.
    masks: [S, M] bool.
    need: [M] bool, encoders that run; features of the others are zeros, so
      that their subsets mean nothing. None: all.
    batch: windows at a time; bounds memory.
  """
  bank = tests.bank
  total = bank.y.shape[0]
  row, weight = _batches(jnp.arange(total), batch)
  filled = scope.fill == 'input'

  def one(row, weight):
    seen, absent = {}, {}
    for i, name in enumerate(task.modalities):
      encode = partial(_encode, task, params, frozen, bank, i, row)
      seen[name] = _where_needed(need if need is None else need[i], encode)
      if filled:
        empty = jnp.broadcast_to(bank.fill[name], (1,) + bank.x[name].shape[1:])
        absent[name] = task.encode(params, frozen, i, empty, task.cuts)
      else:
        absent[name] = jax.tree.map(
          lambda h: jnp.zeros((1,) + h.shape[1:]), seen[name]
        )
    y, person = bank.y[row], tests.person[row]

    def subset(mask):
      features = {
        name: jax.tree.map(
          partial(jnp.where, mask[i]), seen[name], absent[name]
        )
        for i, name in enumerate(task.modalities)
      }
      run = jnp.ones_like(mask) if filled else mask
      scores = task.fuse(params, frozen, features, run)
      if scores.ndim == 2:
        return count(scores)
      return jax.vmap(count)(jnp.concatenate([scores.mean(0)[None], scores]))

    def count(scores):
      classes = scores.shape[-1]
      found = jnp.zeros((scope.persons, classes, classes), jnp.int32)
      return found.at[person, y, scores.argmax(-1)].add(weight)

    return jax.lax.map(subset, masks)

  zeros = jax.eval_shape(one, row[0], weight[0])

  def body(total, chunk):
    return total + one(*chunk), None

  start = jnp.zeros(zeros.shape, zeros.dtype)
  found = jax.lax.scan(body, start, (row, weight))[0]
  return found if found.ndim == 4 else found.swapaxes(0, 1)


def own_counts(
  models: list[tuple[Task, PyTree]],
  index: Array,
  frozen: PyTree,
  own: OwnWindows,
  fleet: Fleet,
  fill: str,
  batch: int = 256,
) -> Array:
  """Tests every device on its own later windows, with its own sensors.

  Args:
    models: tasks and parameters.
    index: [N] int32, the model of each device.
    frozen: parameters that never train.
    own: the windows.
    fleet: [N] devices; windows are seen through their sensors' faults.
    fill: `input` or `skip`.
    batch: windows at a time.

  Returns:
    [N, 3, C] int32 as in `Counts`.
  """
  device = own.order // own.rows.shape[1]
  pairs = (own.rows.ravel()[own.order], device, jnp.ones(device.shape, bool))
  return _count_own(models, index, frozen, own, fleet, fill, pairs, batch)


def _count_own(models, index, frozen, own, fleet, fill, pairs, batch=256):
  """Counts predictions over (row, device, real) pairs, [L] each."""
  classes = jax.eval_shape(
    lambda: _logits(*models[0], frozen, own, fleet, fill, *_first(pairs))
  ).shape[-1]
  chunks = _batches(pairs, batch)

  def body(total, chunk):
    (row, device, real), weight = chunk
    weight *= real
    guess = jnp.zeros(row.shape, jnp.int32)
    for v, model in enumerate(models):
      here = (index[device] == v) & (weight > 0)
      run = partial(
        lambda model, here: _logits(
          *model, frozen, own, fleet, fill, row, device, here
        ).argmax(-1),
        model,
        here,
      )
      told = _where_needed(None if len(models) == 1 else here.any(), run)
      guess = jnp.where(here, told, guess)
    y = own.bank.y[row]
    right = weight * (guess == y)
    return (
      total.at[device, 0, y]
      .add(right)
      .at[device, 1, guess]
      .add(weight)
      .at[device, 2, y]
      .add(weight)
    ), None

  start = jnp.zeros((fleet.id.size, 3, classes), jnp.int32)
  return jax.lax.scan(body, start, chunks)[0]


def _logits(task, params, frozen, own, fleet, fill, row, device, here):
  """Computes class scores of windows on unlike devices, [B, C].

  Args:
    task: the model.
    params: P.
    frozen: parameters that never train.
    own: the windows.
    fleet: [N] devices.
    fill: `input` or `skip`.
    row: [B] int32, of the windows.
    device: [B] int32.
    here: [B] bool, whose scores are asked for; an encoder that none of them
      needs is not run.
  """
  bank, sensed = own.bank, fleet.owned[device]
  faults = None
  if fleet.shift is not None:
    faults = jax.tree.map(lambda v: v[device], fleet.shift)
    sensed &= ~_lost(faults, row + own.first, sensed.shape[1])
  features = {}
  for i, name in enumerate(task.modalities):

    def encode(i=i, name=name):
      x = bank.x[name][row]
      if faults is not None:
        x = _faulty(faults, i, x, row + own.first)
      return task.encode(params, frozen, i, x, task.cuts)

    seen = _where_needed((sensed[:, i] & here).any(), encode)
    absent = jax.tree.map(jnp.zeros_like, seen)
    if fill == 'input':
      empty = jnp.broadcast_to(bank.fill[name], (1,) + bank.x[name].shape[1:])
      absent = task.encode(params, frozen, i, empty, task.cuts)
    features[name] = jax.tree.map(
      lambda a, b, i=i: jnp.where(sensed[:, i, None], a, b), seen, absent
    )
  run = jnp.ones_like(sensed) if fill == 'input' else sensed

  def fuse(features, run):
    one = jax.tree.map(lambda h: h[None], features)
    return task.fuse(params, frozen, one, run)[..., 0, :]

  scores = jax.vmap(fuse)(features, run)
  return scores.mean(1) if scores.ndim == 3 else scores


def _encode(task, params, frozen, bank, i, row):
  x = bank.x[task.modalities[i]][row]
  return task.encode(params, frozen, i, x, task.cuts)


def _where_needed(flag: Array | None, function):
  """Evaluates the function; gives zeros where `flag` is off; None: always."""
  if flag is None:
    return function()
  return jax.lax.cond(flag, function, lambda: tree.zeros_like_output(function))


def _batches(values: PyTree, batch: int) -> tuple[PyTree, Array]:
  """Cuts [L, ...] into [steps, batch, ...]; weights are 0 for padding."""
  total = len(jax.tree.leaves(values)[0])
  steps = -(-total // batch)
  at = jnp.arange(steps * batch)
  place = jnp.minimum(at, total - 1).reshape(steps, batch)
  weight = (at < total).astype(jnp.int32).reshape(steps, batch)
  return jax.tree.map(lambda v: v[place], values), weight


def _first(pairs):
  return jax.tree.map(lambda v: v[:1], pairs)


def _lost(faults, row: Array, modalities: int) -> Array:
  """Marks sensors that do not deliver a window, [B, M] bool."""
  if faults.gone is None:
    return jnp.zeros((row.size, modalities), bool)

  def one(fault, row):
    found = [sensor_faults.lost(fault, m, row[None]) for m in range(modalities)]
    return jnp.concatenate(found)

  return jax.vmap(one)(faults, row)


def _faulty(faults, modality: int, x: Array, row: Array) -> Array:
  """Applies the faults of the devices' own sensors to windows, [B, time, c]."""

  def one(fault, x, row):
    found = sensor_faults.apply(
      fault, modality, x[None], row[None], branch=False
    )
    return found[0]

  return jax.vmap(one)(faults, x, row)
