"""A federation of its own for every modality (stage 1 of Harmony)."""

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import costs
from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts.encoder_clusters import by_block
from relief_jax.engine import buckets
from relief_jax.rounds import frame, parallel
from relief_jax.rounds.method import Round
from relief_jax.rounds.records import Algorithm
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, PyTree


def unimodal(task: Task, setting: Setting, m: int) -> Algorithm:
  """Builds FedAvg of one modality among its owners.

  Args:
    task: the model; of it only the modality's blocks and the shared ones move.
    setting: the round.
    m: number of the modality.
  """
  mine = np.asarray(task.blocks.modality) == m
  blocks = jnp.asarray(mine | task.blocks.shared)
  only = jnp.arange(len(task.modalities)) == m

  def plan(server, round: Round) -> Plan:
    del server
    owners = (round.active & round.fleet.owned[:, m])[:, None]
    trained = owners & blocks[None]
    return Plan(owners & only[None], trained, trained.astype(jnp.float32))

  setting = setting._replace(
    # A program without the other encoders, whatever the run's buckets.
    buckets=(buckets.Bucket(tuple(range(setting.cohort)), (m,)),),
    dropout=False,  # there is nothing to drop
    idle_power=False,
    similarity=False,
  )
  method = fedavg.fedavg(task, setting)._replace(plan=plan)
  return parallel.build(task, setting, method)


def one_by_one(task: Task, setting: Setting) -> Algorithm:
  """Builds the federations of all modalities, one after the other in a round.

  A device pays for a model of each of its sensors. State: [M] of
  `parallel.RoundState`.

  Args:
    task: the model.
    setting: the round.
  """
  single = [unimodal(task, setting, m) for m in range(len(task.modalities))]

  def init(key, params):
    # Copies: a state's arrays are given away one by one.
    return tuple(
      one.init(key, jax.tree.map(jnp.copy, params)) for one in single
    )

  def step(key, states, population, hparams):
    found = [  # the same cohort each time
      one.step(key, state, population, hparams)
      for one, state in zip(single, states, strict=True)
    ]
    new, infos = zip(*found, strict=True)
    total = jax.tree.map(lambda *v: sum(v), *infos)
    every = jnp.stack([info.trained for info in infos])
    tasks = every.any(-1).sum(0)
    info = total._replace(
      client=infos[0].client,
      loss=total.loss / jnp.maximum(tasks, 1),
      trained=every.any(0),
      divergence=jnp.full(task.num_blocks, jnp.nan),
      # No model of several modalities is tested on what has just arrived.
      online=total.online
      and total.online._replace(arrived_samples=None, correct=None),
    )
    if setting.idle_power:  # after a device's last task
      index = states[0].round
      round, _ = frame.open_round(
        key, task, setting, hparams, population, index
      )
      idle = costs.idle_joules(round.fleet, info.seconds)
      info = info._replace(joules=info.joules + idle)
    return new, info

  return Algorithm(init, step, params=lambda states: encoders(task, states))


def encoders(task: Task, states) -> PyTree:
  """Gives P with every modality's blocks of its own federation.

  Shared blocks are those of the first modality's.

  Args:
    task: the model.
    states: [M] of `parallel.RoundState`.
  """
  modality = np.asarray(task.blocks.modality)
  return by_block(
    task,
    lambda block, *each: each[max(modality[block], 0)],
    *(state.params for state in states),
  )


def assembled(task: Task, states, owned: Array) -> PyTree:
  """Gives every device the models of its sensors as one, [N, *P].

  Shared blocks are the mean over its modalities: with one sensor it is the
  model of that sensor.

  Args:
    task: the model.
    states: [M] of `parallel.RoundState`.
    owned: [N, M] bool.
  """
  modality = np.asarray(task.blocks.modality)
  share = owned / jnp.maximum(owned.sum(-1, keepdims=True), 1)

  def leaf(block, *each):
    if modality[block] >= 0:
      mine = each[modality[block]]
      return jnp.broadcast_to(mine, (owned.shape[0], *mine.shape))
    stacked = jnp.stack(each)
    return jnp.einsum('nm,m...->n...', share, stacked, precision='highest')

  return by_block(task, leaf, *(state.params for state in states))
