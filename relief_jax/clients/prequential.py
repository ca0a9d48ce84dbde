"""Tests a model on windows that have just arrived, before it trains on them."""

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.clients import batches
from relief_jax.clients.device import Row, forward
from relief_jax.settings import Setting
from relief_jax.task import Task
from relief_jax.types import Array, Population, PyTree


def correct(
  task: Task,
  setting: Setting,
  population: Population,
  row: Row,
  params: PyTree,
  present: tuple[int, ...] | None = None,
) -> Array:
  """Counts the windows just arrived that a model classifies correctly.

  [] int32.

  Args:
    task: the model.
    setting: of the round.
    population: windows and frozen base.
    row: the device, in an online world with a stream.
    params: P.
    present: as in `forward`.
  """
  fleet, fresh = row.fleet, row.fleet.conditions.fresh
  real = (jnp.arange(fresh.size) < fleet.conditions.arrived).astype(jnp.float32)
  run = fleet.owned | (setting.fill == 'input')
  steps = batches.steps_of(setting, fleet, run, fresh[None], real[None])
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
