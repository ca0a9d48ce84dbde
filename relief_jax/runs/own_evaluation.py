"""Adds up what devices' models predict on the devices' own later windows."""

from functools import partial

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.clients import history, sensor_faults
from relief_jax.scoring import targets
from relief_jax.scoring.sums import SUMS
from relief_jax.task import Task
from relief_jax.types import Array, Fleet, OwnWindows, PyTree


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
    [N, 3, C] int32, or [N, D], as in `Counts`.
  """
  real = own.order >= 0
  at = jnp.maximum(own.order, 0)
  pairs = own.rows.ravel()[at], at // own.rows.shape[1], real
  return count_own(models, index, frozen, own, fleet, fill, pairs, batch)


def count_own(models, index, frozen, own, fleet, fill, pairs, batch=256):
  """Adds up readings over (row, device, real) pairs, [L] each."""
  kind = targets.kind(own.bank.y)
  sums = SUMS[kind]

  def scores(model, *given):
    return _logits(kind, *model, frozen, own, fleet, fill, *given)

  classes = jax.eval_shape(lambda: scores(models[0], *_first(pairs))).shape[-1]
  chunks = batches(pairs, batch)

  def body(total, chunk):
    (row, device, real), weight = chunk
    weight *= real
    y, reading = own.bank.y[row], None
    for v, model in enumerate(models):
      here = (index[device] == v) & (weight > 0)
      run = partial(
        lambda model, here: sums.read(scores(model, row, device, here), y),
        model,
        here,
      )
      told = where_needed(None if len(models) == 1 else here.any(), run)
      if reading is None:
        reading = jnp.zeros_like(told)
      reading = jnp.where(tree.along(here, told), told, reading)
    return sums.own.add(total, device, reading, y, weight), None

  start = sums.own.zeros(fleet.id.size, classes)
  return jax.lax.scan(body, start, chunks)[0]


def _logits(kind, task, params, frozen, own, fleet, fill, row, device, here):
  """Computes the model's output of windows on unlike devices, [B, C].

  Args:
    kind: of the targets.
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
  seen = {}
  for i, name in enumerate(task.modalities):

    def encode(i=i, name=name):
      def window(row):
        x = bank.x[name][row]
        if faults is None:
          return x
        return _faulty(faults, i, x, row + own.first)

      def gone(row):
        return _lost(faults, row + own.first, sensed.shape[1])[:, i]

      losing = faults is not None and faults.lost is not None
      x = history.read(bank, row, task.past, window, gone if losing else None)
      return task.encode(params, frozen, i, x, task.cuts)

    seen[name] = where_needed((sensed[:, i] & here).any(), encode)
  filled = fill == 'input'
  absent = encode_absent(
    task, params, frozen, bank.x, bank.fill if filled else None, seen
  )
  features = {
    name: jax.tree.map(
      lambda a, b, i=i: jnp.where(tree.along(sensed[:, i], a), a, b),
      seen[name],
      absent[name],
    )
    for i, name in enumerate(task.modalities)
  }
  run = jnp.ones_like(sensed) if filled else sensed

  def fuse(features, run):
    one = jax.tree.map(lambda h: h[None], features)
    found = task.fuse(params, frozen, one, run)
    return jnp.squeeze(found, found.ndim - targets.axes(kind))

  scores = jax.vmap(fuse)(features, run)
  return scores.mean(1) if scores.ndim > targets.axes(kind) else scores


def encode_absent(
  task: Task,
  params: PyTree,
  frozen: PyTree,
  x: dict[str, Array],
  fill: dict[str, Array] | None,
  seen: dict[str, PyTree],
) -> dict[str, PyTree]:
  """Computes features that stand for sensors that are not there, [1, d_m].

  Args:
    task: the model.
    params: P.
    frozen: parameters that never train.
    x: {modality: [windows, ...]}, of whose shapes a filled window is.
    fill: {modality: [channels]}, what it is filled with; None: the features
      are zeros.
    seen: {modality: [B, d_m]}, features of sensors that are there.
  """
  absent = {}
  for i, name in enumerate(task.modalities):
    if fill is None:
      absent[name] = jax.tree.map(
        lambda h: jnp.zeros((1,) + h.shape[1:], h.dtype), seen[name]
      )
    else:
      empty = jnp.broadcast_to(fill[name], (1,) + x[name].shape[1:])
      absent[name] = task.encode(params, frozen, i, empty, task.cuts)
  return absent


def encode_raw(task, params, frozen, bank, i, row):
  x = history.read(
    bank, row, task.past, lambda r: bank.x[task.modalities[i]][r]
  )
  return task.encode(params, frozen, i, x, task.cuts)


def where_needed(flag: Array | None, function):
  """Evaluates the function; gives zeros where `flag` is off; None: always."""
  if flag is None:
    return function()
  function = tree.traced_once(function)
  return jax.lax.cond(flag, function, lambda: tree.zeros_like_output(function))


def batches(values: PyTree, batch: int) -> tuple[PyTree, Array]:
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
  if faults.lost is None:
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
