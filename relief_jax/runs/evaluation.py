"""Adds up predictions, on held-out persons and on devices' own windows.

A device is tested with the model that it holds after a round (a narrower,
shallower or masked one, or one of its own) and with the sensors that it owns;
the server's whole model is tested beside it, with every sensor set. Labels
never touch the input side: readings (scoring/sums.py) are taken after the
predictions. Metrics of the sums: scores.py.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.rounds.records import SubModels
from relief_jax.runs.own_evaluation import (
  batches,
  count_own,
  encode_absent,
  encode_raw,
  own_counts,
  where_needed,
)
from relief_jax.scoring import targets
from relief_jax.scoring.sums import SUMS
from relief_jax.task import Task
from relief_jax.types import Array, Fleet, HeldOut, PyTree


class Counts(NamedTuple):
  """Holds the counts of an evaluation; `C` classes, `Z` persons on no device.

  Attributes:
    whole: [S, Z, C, C] int32, confusion matrices of the server's model for
      every tested sensor set, rows are true classes; [N, S, Z, C, C] of
      personal models. Of other targets than classes, here and below, not
      [C, C] but [D] float32 (`scoring.sums`).
    exits: [X, S, Z, C, C] of each exit alone; () without.
    submodels: [V, S', Z, C, C] of the sub-models that devices run, for the
      sensor sets of the fleet; () where all run the whole model.
    model_index: [N] int32 as in `SubModels`, () likewise.
    own: [N, 3, C] int32, on each device's own later windows: how often a class
      was predicted correctly, was predicted, and was true; () without such. Of
      other targets [N, D] float32.
    loss: [S, Z] float32, sums of the cross-entropy, nats, over the windows of
      `whole`; [N, S, Z] of personal models; () where `whole` tells it.
    submodel_loss: [V, S', Z], those of `submodels`.
    nonfinite: [G] float32, leaves of each group of the server's model, or of
      all personal ones, with a number that is not finite; () if not looked for.
  """

  whole: Array
  exits: Array | tuple = ()
  submodels: Array | tuple = ()
  model_index: Array | tuple = ()
  own: Array | tuple = ()
  loss: Array | tuple = ()
  submodel_loss: Array | tuple = ()
  nonfinite: Array | tuple = ()


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
  submodels: SubModels | None = None,
) -> Counts:
  """Tests the server's model, and the sub-models that devices hold.

  Args:
    task: the server's model.
    params: P.
    frozen: parameters that never train.
    tests: windows.
    fleet: [N] devices.
    scope: of the evaluation.
    submodels: None where every device holds the server's model.
  """
  whole, loss = sums_of(
    task, params, frozen, tests, scope, jnp.asarray(scope.masks)
  )
  exits: Array | tuple = ()
  if has_exits(whole, tests):
    whole, exits, loss = whole[0], whole[1:], _first(loss)
  found = Counts(whole, exits, loss=loss)
  index, models = jnp.zeros(fleet.id.shape, jnp.int32), [(task, params)]
  if submodels is not None:
    index = submodels.model_index
    models += list(submodels.models)
    every = [
      _held(model, v, index, frozen, tests, fleet, scope)
      for v, model in enumerate(submodels.models, 1)
    ]
    counts, losses = jax.tree.map(lambda *v: jnp.stack(v), *every)
    found = found._replace(
      submodels=counts, submodel_loss=losses, model_index=index
    )
  if tests.own is not None:
    found = found._replace(
      own=own_counts(models, index, frozen, tests.own, fleet, scope.fill)
    )
  return found


def has_exits(whole: Array, tests: HeldOut) -> bool:
  """Tells whether sums have an axis of exits before sensor sets and persons."""
  return whole.ndim > 2 + SUMS[targets.kind(tests.bank.y)].persons.axes


def _first(values: PyTree) -> PyTree:
  return jax.tree.map(lambda v: v[0], values)


def _held(model, v, index, frozen, tests, fleet, scope) -> tuple[Array, PyTree]:
  """Tests sub-model number v: sums [S', Z, C, C] and losses [S', Z]."""
  sets = jnp.asarray(scope.masks[scope.of_fleet])
  # A sub-model that nobody holds is not run, nor an encoder that none of its
  # devices has.
  need = (fleet.owned & (index == v)[:, None]).any(0)

  @tree.traced_once
  def run():
    found = sums_of(*model, frozen, tests, scope, sets, need)
    return _first(found) if has_exits(found[0], tests) else found

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

  A device has no other sensors than its own: the sums of a sensor set are
  those of what it has of the set, and no encoder runs that it does not have.

  Args: as `evaluate`, with params [N, *P]; absent sensors are skipped.
  """
  scope = scope._replace(fill='skip')

  def held_out(given):
    params, owned = given
    masks = jnp.asarray(scope.masks) & owned[None]
    return sums_of(task, params, frozen, tests, scope, masks, owned)

  whole, loss = jax.lax.map(held_out, (params, fleet.owned))
  if tests.own is None:
    return Counts(whole, loss=loss)
  own = tests.own

  def one(row):
    params, rows, count, device = row
    real = jnp.arange(rows.size) < count
    alone = jax.tree.map(lambda v: v[None], device)
    at = jnp.zeros(rows.shape, jnp.int32)
    return count_own(
      [(task, params)],
      jnp.zeros(1, jnp.int32),
      frozen,
      own,
      alone,
      scope.fill,
      (rows, at, real),
    )[0]

  counted = jax.lax.map(one, (params, own.rows, own.count, fleet))
  return Counts(whole, own=counted, loss=loss)


def fuse_seen(
  task: Task,
  params: PyTree,
  frozen: PyTree,
  seen: dict[str, PyTree],
  absent: dict[str, PyTree],
  mask: Array,
  filled: bool,
) -> Array:
  """Computes class scores with some of the sensors, [B, C] or [X, B, C].

  Args:
    task: the model.
    params: P.
    frozen: parameters that never train.
    seen: {modality: [B, d_m]}, features of sensors that are there.
    absent: {modality: [1, d_m]}, of those that are not (`encode_absent`).
    mask: [M] bool, sensors that are there.
    filled: the model runs on filled inputs; else it skips absent sensors.
  """
  features = {
    name: jax.tree.map(partial(jnp.where, mask[i]), seen[name], absent[name])
    for i, name in enumerate(task.modalities)
  }
  run = jnp.ones_like(mask) if filled else mask
  return task.fuse(params, frozen, features, run)


def sums_of(
  task: Task,
  params: PyTree,
  frozen: PyTree,
  tests: HeldOut,
  scope: Scope,
  masks: Array,
  need: Array | None = None,
  batch: int = 256,
) -> tuple[Array, PyTree]:
  """Computes sums per modality subset and person.

  Encoders run once per window; subsets only fuse.

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

  Returns:
    [S, Z, C, C] int32, confusion matrices, and the sums of the cross-entropy,
    [S, Z] float32. Of a task that gives the logits of X exits (`task.Exits`)
    [1 + X, S, Z, C, C] and [1 + X, S, Z]: first of their mean, then of each.
    Of other targets than classes [S, Z, D] float32 (scoring/sums.py) and ().
  """
  bank = tests.bank
  total = bank.y.shape[0]
  row, weight = batches(jnp.arange(total), batch)
  filled = scope.fill == 'input'
  kind = targets.kind(bank.y)
  sums = SUMS[kind]

  @tree.traced_once
  def one(row, weight):
    seen = {}
    for i, name in enumerate(task.modalities):
      encode = partial(encode_raw, task, params, frozen, bank, i, row)
      seen[name] = where_needed(need if need is None else need[i], encode)
    fill = bank.fill if filled else None
    absent = encode_absent(task, params, frozen, bank.x, fill, seen)
    y, person = bank.y[row], tests.person[row]
    weight *= person >= 0

    def subset(mask):
      scores = fuse_seen(task, params, frozen, seen, absent, mask, filled)
      if scores.ndim == targets.axes(kind):
        return count(scores)
      return jax.vmap(count)(jnp.concatenate([scores.mean(0)[None], scores]))

    def count(scores):
      found = sums.persons.add(
        sums.persons.zeros(scope.persons, scores.shape[-1]),
        person,
        sums.read(scores, y),
        y,
        weight,
      )
      if sums.loss is None:
        return found, ()
      lost = weight * sums.loss(scores, y)
      return found, jnp.zeros(scope.persons, jnp.float32).at[person].add(lost)

    return jax.lax.map(subset, masks)

  zeros = jax.eval_shape(one, row[0], weight[0])

  def body(total, chunk):
    return jax.tree.map(jnp.add, total, one(*chunk)), None

  start = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), zeros)
  found = jax.lax.scan(body, start, (row, weight))[0]
  if not has_exits(found[0], tests):
    return found
  return jax.tree.map(lambda v: v.swapaxes(0, 1), found)
