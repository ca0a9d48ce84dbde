"""Describes one device in a round: its data, functions and update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import optimizers, tree
from relief_jax.clients import batches, training
from relief_jax.clients.records import Batch, Gate, Output, Steps
from relief_jax.scoring import targets
from relief_jax.settings import HParams, Setting
from relief_jax.task import Task
from relief_jax.types import Array, Fleet, Population, PyTree

# Purpose of a device's key: the keys of its local steps.
STEPS = 0


class ClientStore(NamedTuple):
  """Holds the state of a device between rounds; () for none.

  One pytree of all clients, [N, ...] of every leaf: participants' rows are
  taken out before the client map and put back after it.

  Attributes:
    method: of the method (`Method.client_init`).
    updates: of the chain of updates, such as error feedback.
    optimizer: of the local optimiser.
    heard: [G] int32, messages of a group that reached it, where the broadcast
      is coded against a replica; or P, the model that it has, where the
      broadcast may be lost.
  """

  method: PyTree = ()
  updates: PyTree = ()
  optimizer: PyTree = ()
  heard: PyTree = ()


class Row(NamedTuple):
  """Holds one client's row of the client map; zeros stand for nobody.

  Its local steps are drawn inside the map: numbers for every batch of every
  client at once would be the largest thing in a round of many clients.

  Attributes:
    fleet: of one client.
    windows: [W] int32, its windows in the bank.
    run: [M] bool, branches in the forward pass.
    trained: [G] bool.
    active: [] bool, it trains something.
    weight: [G] float32, in the mean.
    args: its row of `Plan.client_args`.
    store: its entry of the client store.
    faulty: [] above 0 for a Byzantine client; () without such.
    steps: [] int32, local steps that it has time for; None: all.
    number: [] int32, its place in the cohort.
    held: [G] bool, as `Plan.held`.
    batch: [] int32, as `Plan.batch`.
    started: which model it started from (rounds/events.py); () elsewhere.
    stale: [G] bool, blocks of the model that were sent to it and lost
      (updates/rateless.py); () where nothing is.
  """

  fleet: Fleet
  windows: Array
  run: Array
  trained: Array
  active: Array
  weight: PyTree = ()
  args: PyTree = ()
  store: ClientStore = ClientStore()
  faulty: PyTree = ()
  steps: Array | None = None
  number: Array | int = 0
  held: Any = None
  batch: Array | None = None
  started: PyTree = ()
  stale: PyTree = ()


class Received(NamedTuple):
  """Holds what the server sends to a device.

  Attributes:
    params: P.
    extra: what comes beside the model; the plan charges its bytes.
  """

  params: PyTree
  extra: PyTree = ()


class Update(NamedTuple):
  """Holds the update that one device sends, and its kept state.

  Attributes:
    delta: P.
    weight: [G] float32, in the mean.
    mask: prefix tree of P, bool, what was trained.
    loss: [] of the training.
    submodel_mask: P bool, elements of its sub-model that it trained, where
      blocks are not whole; else None.
    factor: [G], the part of `weight` that the device computed itself, or ().
    sums: pytree, added up over the cohort.
    rows: pytree, kept apart by device.
    client_state: what the method keeps on the device.
    opt_state: of the local optimiser.
    finite: [] bool, or () where it is not checked.
  """

  delta: PyTree
  weight: Array
  mask: PyTree
  loss: Array
  submodel_mask: PyTree = None
  factor: PyTree = ()
  sums: PyTree = ()
  rows: PyTree = ()
  client_state: PyTree = ()
  opt_state: PyTree = ()
  finite: PyTree = ()

  def weighted(self, factor: Array) -> 'Update':
    """Gives the update with a weight that the device computed, [G]."""
    return self._replace(weight=self.weight * factor, factor=factor)


class Device(NamedTuple):
  """Describes one device as a method sees it: facts and functions, all pure.

  Attributes:
    fleet: of this client.
    trained: [G] bool, blocks that the plan has it train.
    weight: [G] float32, that the plan gives it in the mean.
    args: its row of `Plan.client_args`.
    key: of the round and the device: `batches.client_keys` gives the server
      the same in its plan. The keys of steps are folded from it by `STEPS`.
    client_state: what the method keeps on it.
    hparams: traced hyperparameters.
    steps: [] int32, local steps that it takes in this round.
    labels: [W] int32, classes of its windows; real ones are `fleet.samples`.
    mask: prefix tree of P, bool, `trained` by parameter.
    faulty: as in `Row`.
    branch: of `tree.choose`.
    train: (params, loss, mask, observe=None, keyed=False) -> training.Local.
      Masked parameters keep their bits, and so does the optimiser's state of
      them that is kept; `keyed` gives every step a key.
    forward: (params, step, alter=None, mend=None) -> Output, the last two as
      fields of `records.Batch`.
    loss: (task, criterion=None, base=None) -> ((params, step) -> []), of a
      sub-model, too; `base` maps the frozen parameters to others, which the
      loss then has gradients of.
    classes: step -> [B] int32.
    average: (step -> [B, ...]) -> [...], mean over all windows of the device.
    total: (step -> pytree) -> pytree, sum over all its windows; `step.weight`
      is 0 for those that only fill up a batch.
  """

  fleet: Fleet
  trained: Array
  weight: Array
  args: PyTree
  key: Array
  client_state: PyTree
  hparams: HParams
  steps: Array
  labels: Array
  mask: PyTree
  faulty: PyTree
  branch: bool
  train: Callable[..., training.Local]
  forward: Callable[..., Output]
  loss: Callable[..., Callable[[PyTree, Steps], Array]]
  classes: Callable[[Steps], Array]
  average: Callable[[Callable[[Steps], Array]], Array]
  total: Callable[[Callable[[Steps], PyTree]], PyTree]


class Known(NamedTuple):
  """Holds the data that all devices of a round share beside the model.

  Attributes:
    population: the bank and the frozen base, nobody's rows.
    round_index: [] int32.
    hparams: traced hyperparameters.
    plan_key: of the devices' own draws.
    step_key: of the local steps.
    link_key: of the messages.
  """

  population: Population
  round_index: Array
  hparams: HParams
  plan_key: Array
  step_key: Array
  link_key: Array


def forward(
  task: Task,
  population: Population,
  trained: Array,
  branch: bool = True,
  present: tuple[int, ...] | None = None,
):
  """Builds the forward pass of one client.

  A function (params, step, alter=None, mend=None) -> Output; the last two are
  fields of `records.Batch`.

  Args:
    task: the model.
    population: windows and frozen base.
    trained: [G] bool.
    branch: of `training.forward`; `Layout.branch` where clients are mapped.
    present: of `training.forward`. `batches.local_steps` lets nothing run that
      is not owned, unless `fill` is `input`.
  """

  def run(params, step, alter=None, mend=None, length=None):
    gate = Gate(step.run, step.sensed, trained)
    batch = Batch(
      population.bank, step.row, step.weight, step.shift, alter, mend
    )
    return training.forward(
      task, params, population.frozen, batch, gate, branch, present, length
    )

  return run


def client_loss(
  task: Task,
  population: Population,
  trained: Array,
  branch: bool = True,
  present: tuple[int, ...] | None = None,
  criterion: Callable[..., Array] | None = None,
):
  """Builds the local objective of one client, (params, step) -> [].

  Args:
    task: the model.
    population: windows and frozen base.
    trained: [G] bool.
    branch: as in `forward`.
    present: as in `forward`.
    criterion: (logits, y [B], weight [B]) -> []; None: the task's own.
  """
  run = forward(task, population, trained, branch, present)
  criterion = criterion or training.criterion(task)

  def loss(params, step, length=None):
    found = run(params, step, length=length)
    y, weight = population.bank.y[step.row], step.weight
    value = criterion(found.logits, y, weight)
    if task.experts is not None:
      value += task.experts.balance(found.routing, targets.told(y, weight))
    if task.penalty is None:
      return value
    return value + task.penalty(params, found.features, step.run, weight, y)

  def shortened(params, step):
    each = [lambda p, k=k: loss(p, step, k) for k in task.skips]
    index = (step.run.sum() > jnp.array(task.skips[:-1])).sum()
    return training.one_of(index, each, params)

  def either(params, step):
    # Filled sensors all run: there is nothing to leave out.
    several = len(task.skips) > 1 and step.sensed is None
    chosen = shortened if branch and several else loss
    return chosen(params, step)

  return either


def make(
  task: Task,
  setting: Setting,
  known: Known,
  row: Row,
  present: tuple[int, ...] | None = None,
) -> Device:
  """Builds one device of a round.

  Args:
    task: the model.
    setting: of the round.
    known: to all devices.
    row: of this one.
    present: as in `forward`.
  """
  branch, fleet, population = setting.layout.branch, row.fleet, known.population
  own_key = jax.random.fold_in(known.plan_key, fleet.id)

  def train(params, loss, mask, observe=None, keyed=False):
    steps = batches.local_steps(
      known.step_key, setting, known.hparams, fleet, row.windows, row.run
    )
    if row.steps is not None:
      steps = batches.cut(steps, row.steps)
    if keyed:
      steps = batches.with_keys(jax.random.fold_in(own_key, STEPS), steps)
    kept = row.store.optimizer or None
    done = training.local_update(
      loss,
      setting.client_tx(known.hparams, known.round_index),
      params,
      mask,
      steps,
      kept,
      observe=observe,
      ragged=setting.epochs > 0 or row.steps is not None,
      branch=branch,
    )
    if kept is None:
      return done
    # Once a round: no step reads the state of what does not train.
    state = optimizers.select(mask, done.opt_state, kept)
    return done._replace(opt_state=state)

  def total(add):
    every = batches.steps_of(
      setting,
      fleet,
      row.run,
      *batches.in_order(row.windows, fleet.samples, setting.batch),
    )
    first = jax.tree.map(lambda v: v[0], every)
    add = tree.traced_once(add)
    nothing = tree.zeros_like_output(add, first)

    def body(sums, step):
      real = (step.weight > 0).any()
      more = tree.choose(real, add, lambda _: nothing, step, branch=branch)
      return jax.tree.map(jnp.add, sums, more), None

    return jax.lax.scan(body, nothing, every)[0]

  def average(values):
    def add(step):
      found = values(step)
      return tree.scale(tree.along(step.weight, found), found).sum(0)

    return total(add) / jnp.maximum(fleet.samples, 1)

  def loss(task, criterion=None, base=None):
    if base is None:
      return client_loss(
        task, population, row.trained, branch, present, criterion
      )
    # Layers that are skipped where nothing trains know no gradient of a base.
    own = population.replace(frozen=base(population.frozen))
    return client_loss(task, own, row.trained, False, present, criterion)

  return Device(
    fleet=fleet,
    trained=row.trained,
    weight=row.weight,
    args=row.args,
    key=own_key,
    client_state=row.store.method,
    hparams=known.hparams,
    steps=setting.local_steps(fleet) if row.steps is None else row.steps,
    labels=population.bank.y[row.windows],
    mask=tree.broadcast_groups(task.groups, row.trained),
    faulty=row.faulty,
    branch=branch,
    train=train,
    forward=forward(task, population, row.trained, branch, present),
    loss=loss,
    classes=lambda step: population.bank.y[step.row],
    average=average,
    total=total,
  )
