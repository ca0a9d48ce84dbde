"""One client's part of a round: its local steps and its objective."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from relief_jax import cohort, training
from relief_jax.recipe import Setting
from relief_jax.types import Array, Batch, Fleet, Gate, Population, Steps, Task


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
    row, weight = cohort.draw_epochs(
      row_key, own, fleet.samples, setting.epochs, setting.batch
    )
  else:
    row, weight = cohort.draw_steps(
      row_key, own, fleet.samples, setting.steps, setting.batch
    )
  count = row.shape[0]
  if setting.dropout:
    kept = training.modality_dropout(
      drop_key, fleet.owned, setting.hparams['dropout'], count
    )
  else:
    kept = _repeat(fleet.owned, count)
  run = _repeat(run, count)
  shift = jax.tree.map(lambda v: _repeat(v, count), fleet.shift)
  if setting.fill == 'input':
    return Steps(row, weight, run, kept, shift)
  return Steps(row, weight, run & kept, None, shift)


def _repeat(value: Array, count: int) -> Array:
  """The same in all steps, [count, ...]."""
  return jnp.broadcast_to(value[None], (count, *value.shape))


def client_loss(
  task: Task,
  population: Population,
  trained: Array,
  branch: bool = True,
  present: tuple[int, ...] | None = None,
  criterion: Callable[..., Array] = training.cross_entropy,
):
  """The local objective of one client: (params, step) -> [].

  Args:
    task: the model.
    population: windows and frozen base.
    trained: [G] bool.
    branch: of `training.logits`; `Layout.branch` where clients are mapped.
    present: of `training.logits`. `draw_steps` lets nothing run that is not
      owned, unless `fill` is `input`.
    criterion: (logits, y [B], weight [B]) -> [].
  """

  def loss(params, step):
    gate = Gate(step.run, step.sensed, trained)
    batch = Batch(population.bank, step.row, step.weight, step.shift)
    scores = training.logits(
      task, params, population.frozen, batch, gate, branch, present
    )
    return criterion(scores, population.bank.y[step.row], step.weight)

  return loss
