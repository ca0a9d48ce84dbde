"""Measures the server's model on a batch of a device's own windows.

For plans that follow from what devices find there before they train.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.clients import batches, training
from relief_jax.clients import device as devices
from relief_jax.clients.records import Batch, Gate, Steps
from relief_jax.engine import ambient
from relief_jax.rounds.method import Round
from relief_jax.settings import Setting
from relief_jax.task import Task
from relief_jax.types import Array, Fleet, PyTree


class Seen(NamedTuple):
  """Holds what one client sees of its batch.

  Attributes:
    features: {m: [B, d_m]} of all modalities.
    y: [B] classes.
    run: [M] bool, its sensors.
    params: P, the server's model.
    frozen: parameters that never train.
    loss: frozen -> [], the training loss on the batch, of which there may be a
      gradient.
  """

  features: dict[str, Array]
  y: Array
  run: Array
  params: PyTree
  frozen: PyTree
  loss: Callable[[PyTree], Array]


class _Row(NamedTuple):
  """Holds one client that may measure; zeros stand for nobody."""

  key: Array  # [2] uint32
  fleet: Fleet  # of one client
  own: Array  # [W] int32
  run: Array  # [M] bool
  measures: Array  # [] bool


def measure(
  task: Task,
  setting: Setting,
  params: PyTree,
  round: Round,
  measures: Array,
  work: Array,
  function: Callable[[Seen], PyTree],
) -> PyTree:
  """Measures on all participants that may, [K, ...]; zeros of the others.

  Args:
    task: the model.
    setting: the round.
    params: P.
    round: before its plan.
    measures: [K] bool.
    work: [K], by which clients are dealt to devices of the machine.
    function: what is measured of a batch.
  """
  branch = setting.layout.branch

  def client(known, row):
    params, population = known

    @tree.traced_once
    def found(row):
      key = ambient.of_words(row.key)
      at, weight = batches.draw_steps(
        key, row.own, row.fleet.samples, 1, setting.batch
      )
      batch = Batch(population.bank, at[0], weight[0], row.fleet.shift)
      gate = Gate(row.run, None, jnp.zeros(task.num_blocks, bool))
      features = training.forward(
        task, params, population.frozen, batch, gate, branch
      ).features
      y = population.bank.y[at[0]]

      def loss(frozen):
        # Without branches: layers that are skipped where nothing trains know
        # no gradient of the base.
        own = population.replace(frozen=frozen)
        value = devices.client_loss(task, own, gate.train, branch=False)
        step = Steps(at[0], weight[0], row.run, None, row.fleet.shift)
        return value(params, step)

      return function(
        Seen(features, y, row.run, params, population.frozen, loss)
      )

    def nothing(row):
      return tree.zeros_like_output(found, row)

    return (), tree.choose(row.measures, found, nothing, row, branch=branch)

  row = _Row(
    key=jax.random.key_data(batches.client_keys(round.key, round.fleet)),
    fleet=round.fleet,
    own=round.windows,
    run=round.fleet.owned,
    measures=measures,
  )
  return round.each(client, (params, round.population), row, work)[1]
