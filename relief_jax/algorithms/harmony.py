"""Harmony (https://doi.org/10.1145/3581791.3596844): sensor by sensor first.

    stage 1   per modality m a FedAvg of its own among the owners of m
    stage 2   devices of two sensors or more, by combination q of sensors:
              encoders stay on the device, classifiers are averaged within
              k-means clusters of q's members, k = (|q| - 1) // 5 + 1, of
              dist[n, m] = 1 - cos(encoder_m, encoder_m of stage 1),
              each column over its largest member of q

Stage 1 takes two thirds of the rounds. In stage 2 encoders learn at 1e-4, what
is behind them (columns of the fusion, bias and head) at the usual rate. All of
q is one cluster in the first round of stage 2. Grade: the abstract is
published; the rules are those of the code of a port
(https://github.com/AdibaOrz/FLISM). The paper also balances resources between
the modalities; its text is not public, and nothing here stands for it.

Departures: the port tests everybody with the classifier of cluster 0; here a
device has its own cluster's. **Ours**: a classifier is on the devices of its
cluster, which is the same as a table of them; stage 2 starts with the columns
of stage 1 and the mean of the owned modalities' biases and heads (the port
starts anew), and until then a device is tested with just that: with one sensor
it is the model of that sensor. With `clients_per_round` the clusters are of all
members by the distances last sent, and the mean is over the participants; who
meets nobody of its cluster keeps its classifier.

*Budget*: none. *Bytes and FLOPs*: in stage 1 a device pays for a model of each
of its sensors, one after the other. In stage 2 the classifier goes both ways
and a number per sensor up; encoders come down once, before a device's first
turn. Who has one sensor rests there. The server's optimiser and weights by
samples are of stage 1; the means of stage 2 are plain.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from relief_jax import costs, tree
from relief_jax.algorithms.parts import encoder_clusters, unimodal
from relief_jax.clients import batches, device, training
from relief_jax.engine import buckets
from relief_jax.errors import InputError
from relief_jax.keys import MANY, option, real, whole
from relief_jax.rounds import accounting, frame, legality
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.records import Algorithm
from relief_jax.rounds.stages import stages
from relief_jax.settings import HParams, Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, Fleet, PyTree


class Clustered(NamedTuple):
  """Holds what is carried between rounds of stage 2.

  Attributes:
    own: [N, *P], every device's model.
    start: P, encoders of stage 1.
    distance: [N, M] float32, of the encoders from those.
    joined: [N] bool, took part in stage 2.
    round: [] int32, of the run.
    done: [] int32, rounds of stage 2.
  """

  own: PyTree
  start: PyTree
  distance: Array
  joined: Array
  round: Array
  done: Array


class _Row(NamedTuple):
  """Holds one client of stage 2."""

  params: PyTree
  fleet: Fleet
  windows: Array
  run: Array
  trained: Array
  active: Array
  distance: Array


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of Harmony."""

  alone: float = option(
    real(2 / 3, 0, 1, 'share of the rounds in which each modality trains alone')
  )
  encoder_lr: float = option(real(1e-4, 0, 10, 'of the encoders, afterwards'))
  members: int = option(
    whole(5, 1, MANY, 'devices per cluster of a combination of sensors')
  )


@Facts(options=Options, skips=True)
def harmony(task: Task, setting: Setting) -> Algorithm:
  """Builds Harmony; with one modality stage 1 is FedAvg.

  Args:
    task: the model; encoders have blocks of their own.
    setting: the round, with `Options`.

  Raises:
    InputError: encoders that do not train or share a block with what is sent,
      a codec, a guard, another local optimiser, or one whose state is kept.
  """
  _check(task, setting)

  def begin(hparams):
    first = jnp.ceil(setting.options.alone * hparams['rounds'])
    return first.astype(jnp.int32)

  def hand_over(states, second: Clustered, population):
    return second._replace(
      own=unimodal.assembled(task, states, population.fleet.owned),
      start=unimodal.encoders(task, states),
      round=states[0].round,
    )

  return stages(
    unimodal.one_by_one(task, setting),
    clustered(task, setting),
    begin,
    hand_over,
  )


def clustered(task: Task, setting: Setting) -> Algorithm:
  """Builds stage 2: personal encoders, classifiers averaged within clusters.

  It keeps a step of its own: a cluster's classifier also reaches members that
  sat the round out, so that the server needs the rows of all devices.

  Args:
    task: the model.
    setting: the round, as in `harmony`.
  """
  options = setting.options
  encoder = jnp.asarray(_encoders(task))
  classifier = ~encoder.any(0)
  branch = setting.layout.branch

  def local_tx(
    hparams: HParams, round_index: Array
  ) -> optax.GradientTransformation:
    """Builds the local optimiser, with two rates."""
    rate = setting.client_rate(hparams, round_index)
    rates = jnp.where(classifier, rate, options.encoder_lr)
    rates = tree.broadcast_groups(task.groups, rates)
    return optax.chain(
      optax.trace(decay=hparams['client_momentum']),
      optax.scale(-1.0),
      optax.stateless(lambda updates, _: tree.scale(rates, updates)),
    )

  def client(present, shared, row: _Row):
    known, start = shared
    loss = device.client_loss(
      task, known.population, row.trained, branch, present
    )

    def train(row):
      steps = batches.local_steps(
        known.step_key, setting, known.hparams, row.fleet, row.windows, row.run
      )
      done = training.local_update(
        loss,
        local_tx(known.hparams, known.round_index),
        row.params,
        tree.broadcast_groups(task.groups, row.trained),
        steps,
        ragged=setting.epochs > 0,
        branch=branch,
      )
      params = jax.tree.map(jnp.add, row.params, done.delta)
      moved = encoder_clusters.distances(task, encoder, params, start)
      return params, done.loss, jnp.where(row.fleet.owned, moved, 0.0)

    def rest(row):
      return row.params, jnp.float32(0.0), row.distance

    return (), tree.choose(row.active, train, rest, row, branch=branch)

  def init(key, params):
    del key
    clients = setting.clients
    return Clustered(
      own=frame.everyone(params, clients),
      start=params,
      distance=jnp.zeros((clients, len(task.modalities))),
      joined=jnp.zeros(clients, bool),
      round=jnp.int32(0),
      done=jnp.int32(0),
    )

  def step(key, state: Clustered, population, hparams: HParams):
    round, known = frame.open_round(
      key, task, setting, hparams, population, state.round
    )
    fleet, place = round.fleet, round.place
    active = encoder_clusters.members(fleet)
    run = fleet.owned & active[:, None]
    trained = round.access & active[:, None]
    plan = Plan(run, trained, trained.astype(jnp.float32))
    _, (params, loss, moved) = buckets.map_reduce(
      lambda present: partial(client, present),
      (known, state.start),
      _Row(
        params=frame.take(state.own, place),
        fleet=fleet,
        windows=round.windows,
        run=run,
        trained=trained,
        active=active,
        distance=state.distance[place],
      ),
      setting.layout,
      setting.buckets,
      costs.plan_flops(task.work, plan),
    )
    distance = state.distance.at[place].set(moved)
    combination, cluster = encoder_clusters.clustered(
      population.fleet, distance, options.members
    )
    # In the first round of the stage all of a combination are one cluster.
    cluster = jnp.where(state.done == 0, 0, cluster)
    every = frame.put(state.own, place, params)
    part = jnp.zeros_like(state.joined).at[place].set(active)
    size = 4 * task.work.size
    sent = trained & classifier[None]
    received = sent | (trained & ~state.joined[place][:, None])
    info, _ = accounting.account(
      task,
      setting,
      plan,
      round,
      costs.total(sent, size) + 4.0 * fleet.owned.sum(-1),
      costs.total(received, size),
    )
    return state._replace(
      own=encoder_clusters.merged(
        task, classifier, every, population.fleet, combination, cluster, part
      ),
      distance=distance,
      joined=state.joined | part,
      round=state.round + 1,
      done=state.done + 1,
    ), info._replace(loss=loss, divergence=jnp.full(task.num_blocks, jnp.nan))

  return Algorithm(
    init,
    step,
    params=lambda state: state.own,
    personal=True,
    check=_check_fleet,
  )


def _encoders(task: Task) -> np.ndarray:
  """Finds the blocks of each modality's encoder, [M, G] bool."""
  role, modality = task.blocks.of('encoder', 'joint'), task.blocks.modality
  number = np.arange(len(task.modalities))[:, None]
  return role[None] & (np.asarray(modality)[None] == number)


def _check_fleet(fleet: Fleet, deadline: float) -> None:
  """Refuses bounds of memory, which the stages do not look at."""
  del deadline
  if fleet.memory is not None:
    raise InputError(
      "a fleet with memory_mb for 'harmony'",
      'one without: its stages train whatever fits or not',
      'leave the column out of the fleet',
    )


def _check(task: Task, setting: Setting) -> None:
  """Refuses what harmony has no use for; see there."""
  legality.codes(setting, 'harmony', 'sends classifiers, in full precision')
  legality.alone(setting, 'harmony')
  legality.local(setting, 'harmony', 'has two rates of SGD with momentum')
  encoder, modality = _encoders(task), np.asarray(task.blocks.modality)
  apart = set(modality[~encoder.any(0)])
  if not encoder.any(1).all():
    raise InputError(
      "'harmony' with encoders that do not train",
      'encoders that become personal',
      'set --config.backbone=cnn, or --config.model.adapters=True',
    )
  if not set(range(len(encoder))) <= apart:
    raise InputError(
      "'harmony' where an encoder and its column of the fusion are one group",
      'groups apart: encoders stay on the device, columns are sent',
      'set --config.model.groups=split',
    )
  if setting.keep_client_state:
    raise InputError(
      "config.keep_client_state=True for 'harmony'",
      'False: stage 2 trains other models than stage 1',
      'set --config.keep_client_state=False',
    )
