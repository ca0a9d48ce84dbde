"""One client's part of a round: its local steps and its objective."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.clients import batches as batches_lib
from relief_jax.clients import training
from relief_jax.rounds.method import Client, Learner
from relief_jax.settings import Setting
from relief_jax.types import (
  Array,
  Batch,
  Fleet,
  Gate,
  Population,
  PyTree,
  Steps,
  Task,
)

# Purpose of a client's key: the keys of its steps.
STEPS = 0


class Row(NamedTuple):
  """One client's row of the client map; zeros stand for nobody.

  Its local steps are drawn inside the map: numbers for every batch of every
  client at once would be the largest thing in a round of many clients.
  """

  fleet: Fleet  # of one client
  own: Array  # [W] int32, its windows in the bank
  run: Array  # [M] bool
  trained: Array  # [G] bool
  active: Array  # [] bool
  weight: PyTree = ()  # [G] float32
  local: PyTree = ()
  piece: PyTree = ()  # of the plan
  residual: PyTree = ()  # P
  steps: Array | None = None  # [] int32, as many fit; None: all
  faulty: PyTree = ()  # [] above 0 for who lies (updates/faults.py), or ()


def draw_steps(
  key: Array, setting: Setting, fleet: Fleet, own: Array, run: Array
) -> Steps:
  """Local steps of one client, [T, ...].

  Args:
    key: of the round and this purpose; the client's own follows from its id.
    setting: of the round.
    fleet: of one client, [] and [M].
    own: [W] its windows.
    run: [M] bool, branches in the forward pass.
  """
  row_key, drop_key = (
    jax.random.fold_in(k, fleet.id) for k in jax.random.split(key)
  )
  if setting.epochs:
    row, weight = batches_lib.draw_epochs(
      row_key, own, fleet.samples, setting.epochs, setting.batch
    )
  else:
    row, weight = batches_lib.draw_steps(
      row_key, own, fleet.samples, setting.steps, setting.batch
    )
  kept = None
  if setting.dropout:
    kept = training.modality_dropout(
      drop_key, fleet.owned, setting.hparams['dropout'], row.shape[0]
    )
  return _steps(setting, fleet, run, row, weight, kept)


def _steps(setting, fleet, run, row, weight, kept=None) -> Steps:
  """Steps of one client over `row`; `kept` [T, M] tells the real sensors."""
  count = row.shape[0]
  if kept is None:
    kept = _repeat(fleet.owned, count)
  run = _repeat(run, count)
  shift = jax.tree.map(lambda v: _repeat(v, count), fleet.shift)
  if setting.fill == 'input':
    return Steps(row, weight, run, kept, shift)
  return Steps(row, weight, run & kept, None, shift)


def _repeat(value: Array, count: int) -> Array:
  """The same in all steps, [count, ...]."""
  return jnp.broadcast_to(value[None], (count, *value.shape))


def cut(steps: Steps, count: Array) -> Steps:
  """The first `count` [] of the steps; the others hold padding only."""
  kept = jnp.arange(steps.weight.shape[0]) < count
  return steps._replace(weight=jnp.where(kept[:, None], steps.weight, 0.0))


def right(
  task: Task,
  setting: Setting,
  population: Population,
  row: Row,
  params: PyTree,
  present: tuple[int, ...] | None = None,
) -> Array:
  """How many of the windows that have just arrived a model tells, [] int32.

  Args:
    task: the model.
    setting: of the round.
    population: windows and frozen base.
    row: the device, in an online world with a stream.
    params: P.
    present: as in `forward`.
  """
  fleet, fresh = row.fleet, row.fleet.scene.fresh
  real = (jnp.arange(fresh.size) < fleet.scene.arrived).astype(jnp.float32)
  run = fleet.owned | (setting.fill == 'input')
  steps = _steps(setting, fleet, run, fresh[None], real[None])
  step = jax.tree.map(lambda v: v[0], steps)

  def test(step):
    scores = forward(
      task, population, row.trained, setting.layout.branch, present
    )(params, step).logits
    hit = scores.argmax(-1) == population.bank.y[step.row]
    return (hit & (step.weight > 0)).sum()

  return tree.choose(
    real.any(),
    test,
    lambda step: jnp.int32(0),
    step,
    branch=setting.layout.branch,
  )


def with_keys(key: Array, steps: Steps) -> Steps:
  """The steps with a key each, for objectives that draw.

  Args:
    key: of the round and the client.
    steps: T of them.
  """
  own = jax.random.fold_in(key, STEPS)
  return steps._replace(key=jax.random.split(own, steps.row.shape[0]))


def forward(
  task: Task,
  population: Population,
  trained: Array,
  branch: bool = True,
  present: tuple[int, ...] | None = None,
):
  """The model as one client runs it.

  A function (params, step, alter=None, mend=None) -> Output; the last two are
  fields of `types.Batch`.

  Args:
    task: the model.
    population: windows and frozen base.
    trained: [G] bool.
    branch: of `training.forward`; `Layout.branch` where clients are mapped.
    present: of `training.forward`. `draw_steps` lets nothing run that is not
      owned, unless `fill` is `input`.
  """

  def run(params, step, alter=None, mend=None):
    gate = Gate(step.run, step.sensed, trained)
    batch = Batch(
      population.bank, step.row, step.weight, step.shift, alter, mend
    )
    return training.forward(
      task, params, population.frozen, batch, gate, branch, present
    )

  return run


def client_loss(
  task: Task,
  population: Population,
  trained: Array,
  branch: bool = True,
  present: tuple[int, ...] | None = None,
  criterion: Callable[..., Array] = training.cross_entropy,
):
  """The local objective of one client: (params, step) -> []; see `forward`.

  Args:
    task: the model.
    population: windows and frozen base.
    trained: [G] bool.
    branch: as in `forward`.
    present: as in `forward`.
    criterion: (logits, y [B], weight [B]) -> [].
  """
  run = forward(task, population, trained, branch, present)

  def loss(params, step):
    scores = run(params, step).logits
    return criterion(scores, population.bank.y[step.row], step.weight)

  return loss


def learner(
  task: Task,
  setting: Setting,
  population: Population,
  key: Array,
  row: Row,
  sent: PyTree,
  present: tuple[int, ...] | None = None,
) -> Learner:
  """What a recipe's objective and weight of one client may look at.

  Args:
    task: the model.
    setting: of the round.
    population: windows and frozen base.
    key: of the round's plan.
    row: the device.
    sent: what it got beside the model.
    present: as in `forward`.
  """
  branch, fleet = setting.layout.branch, row.fleet

  def total(add):
    batches = batches_lib.in_order(row.own, fleet.samples, setting.batch)
    every = _steps(setting, fleet, row.run, *batches)
    first = jax.tree.map(lambda v: v[0], every)
    nothing = tree.zeros_like_output(add, first)

    def body(sums, step):
      real = (step.weight > 0).any()
      more = tree.choose(real, add, lambda _: nothing, step, branch=branch)
      return jax.tree.map(jnp.add, sums, more), None

    return jax.lax.scan(body, nothing, every)[0]

  def average(values):
    def add(step):
      found = values(step)
      weight = step.weight.reshape((-1,) + (1,) * (found.ndim - 1))
      return tree.scale(weight, found).sum(0)

    return total(add) / jnp.maximum(fleet.samples, 1)

  return Learner(
    client=Client(
      key=jax.random.fold_in(key, fleet.id),
      fleet=fleet,
      y=population.bank.y[row.own],
      piece=row.piece,
    ),
    sent=sent,
    forward=forward(task, population, row.trained, branch, present),
    y=lambda step: population.bank.y[step.row],
    loss=lambda task, criterion=training.cross_entropy: client_loss(
      task, population, row.trained, branch, present, criterion
    ),
    average=average,
    total=total,
    branch=branch,
  )
