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

from relief_jax import blocks, costs, tree
from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import kmeans
from relief_jax.clients import batches, device, training
from relief_jax.engine import buckets
from relief_jax.errors import InputError
from relief_jax.keys import MANY, option, real, whole
from relief_jax.rounds import accounting, frame, legality, parallel
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Round
from relief_jax.settings import HParams, Setting
from relief_jax.types import (
  Algorithm,
  Array,
  Fleet,
  Plan,
  PyTree,
  RoundInfo,
  Task,
)


class HarmonyState(NamedTuple):
  """Carried between rounds.

  Attributes:
    alone: [M] of `parallel.RoundState`, a federation per modality; of its model
      only that modality's groups and the shared ones ever move.
    own: [N, *P], every device's model.
    distance: [N, M] float32, of the encoders from those of stage 1.
    joined: [N] bool, took part in stage 2.
    round: [] int32.
  """

  alone: tuple[parallel.RoundState, ...]
  own: PyTree
  distance: Array
  joined: Array
  round: Array


class _Row(NamedTuple):
  """One client of stage 2."""

  params: PyTree
  fleet: Fleet
  own: Array
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
    task: the model; encoders have groups of their own.
    setting: the round, with `Options`.

  Raises:
    InputError: encoders that do not train or share a group with what is sent,
      a codec, a guard, or momentum kept on the devices.
  """
  options, num = setting.options, task.num_blocks
  _check(task, setting)
  names = range(len(task.modalities))
  modality = np.asarray(task.blocks.modality)
  encoder = jnp.asarray(_encoders(task))
  classifier = ~encoder.any(0)
  branch = setting.layout.branch
  single = [_unimodal(task, setting, m) for m in names]

  def fusion_tx(hparams: HParams) -> optax.GradientTransformation:
    """Builds the local optimiser of stage 2, with two rates."""
    rates = jnp.where(classifier, hparams['client_lr'], options.encoder_lr)
    rates = tree.spread(task.groups, rates)
    return optax.chain(
      optax.trace(decay=hparams['client_momentum']),
      optax.scale(-1.0),
      optax.stateless(lambda updates, _: tree.scale(rates, updates)),
    )

  def distances(params: PyTree, start: PyTree) -> Array:
    """1 - cos of each encoder, [M]; 0 where one is all zeros.

    As half the squared distance of unit vectors: a difference from 1 would
    round to zeros what encoders move in a round.
    """

    def unit(params):
      sq = norms(params)
      inverse = jnp.where(sq > 0, jax.lax.rsqrt(sq), 0.0)
      weight = costs.total(encoder.T, inverse)
      return tree.scale(tree.spread(task.groups, weight), params)

    def norms(params):
      sq = tree.group_sq_norms(task.groups, params, num)
      return costs.total(encoder, sq)

    return norms(jax.tree.map(jnp.subtract, unit(params), unit(start))) / 2

  def assemble(alone, owned: Array) -> PyTree:
    """What stage 1 makes of every device, [N, *P]."""
    share = owned / jnp.maximum(owned.sum(-1, keepdims=True), 1)

    def leaf(group, *each):
      if modality[group] >= 0:
        mine = each[modality[group]]
        return jnp.broadcast_to(mine, (owned.shape[0], *mine.shape))
      stacked = jnp.stack(each)
      return jnp.einsum('nm,m...->n...', share, stacked, precision='highest')

    return _by_group(task, leaf, *(state.params for state in alone))

  def first_stage(key, state: HarmonyState, population, hparams):
    states, infos = zip(
      *(
        # The same cohort each time.
        single[m].step(key, state.alone[m], population, hparams)
        for m in names
      ),
      strict=True,
    )
    total = jax.tree.map(lambda *v: sum(v), *infos)
    every = jnp.stack([info.trained for info in infos])
    tasks = every.any(-1).sum(0)
    info = total._replace(
      client=infos[0].client,
      loss=total.loss / jnp.maximum(tasks, 1),
      trained=every.any(0),
      # Of stage 2 no model is tested on what has just arrived.
      online=total.online and total.online._replace(tested=None, correct=None),
    )
    if setting.idle_power:  # after a device's last task
      round, _ = frame.open_round(
        key, task, setting, hparams, population, state.round
      )
      idle = costs.idle_joules(round.fleet, info.seconds)
      info = info._replace(joules=info.joules + idle)
    own = assemble(states, population.fleet.owned)
    return state._replace(alone=states, own=own), info

  def client(present, shared, row: _Row):
    known, start = shared
    loss = device.client_loss(
      task, known.population, row.trained, branch, present
    )

    def train(row):
      done = training.local_update(
        loss,
        fusion_tx(known.hparams),
        row.params,
        tree.spread(task.groups, row.trained),
        batches.local_steps(
          known.step_key, setting, known.hparams, row.fleet, row.own, row.run
        ),
        ragged=setting.epochs > 0,
        branch=branch,
      )
      params = jax.tree.map(jnp.add, row.params, done.delta)
      moved = distances(params, start)
      return params, done.loss, jnp.where(row.fleet.owned, moved, 0.0)

    def rest(row):
      return row.params, jnp.float32(0.0), row.distance

    return (), tree.choose(row.active, train, rest, row, branch=branch)

  def second_stage(begin, key, state: HarmonyState, population, hparams):
    round, known = frame.open_round(
      key, task, setting, hparams, population, state.round
    )
    fleet, index = round.fleet, round.place
    active = _members(fleet)
    run = fleet.owned & active[:, None]
    trained = round.access & active[:, None]
    plan = Plan(run, trained, trained.astype(jnp.float32))
    start = _by_group(
      task,
      lambda group, *each: each[max(modality[group], 0)],
      *(one.params for one in state.alone),
    )
    row = _Row(
      params=frame.take(state.own, index),
      fleet=fleet,
      own=round.windows,
      run=run,
      trained=trained,
      active=active,
      distance=state.distance[index],
    )
    _, (params, loss, distance) = buckets.map_reduce(
      lambda present: partial(client, present),
      (known, start),
      row,
      setting.layout,
      setting.buckets,
      costs.plan_flops(task.work, plan),
    )
    distance = state.distance.at[index].set(distance)
    group, cluster = _clustered(population.fleet, distance, options.members)
    cluster = jnp.where(state.round == begin, 0, cluster)
    every = frame.put(state.own, index, params)
    part = jnp.zeros_like(state.joined).at[index].set(active)
    size = 4 * task.work.size
    sent = trained & classifier[None]
    received = sent | (trained & ~state.joined[index][:, None])
    info, _ = accounting.account(
      task,
      setting,
      plan,
      round,
      costs.total(sent, size) + 4.0 * fleet.owned.sum(-1),
      costs.total(received, size),
    )
    return state._replace(
      own=merged(every, population.fleet, group, cluster, part),
      distance=distance,
      joined=state.joined | part,
    ), info._replace(loss=loss)

  def merged(every: PyTree, fleet: Fleet, group, cluster, part) -> PyTree:
    """The models with the mean classifier of their cluster, [N, *P].

    Args:
      every: [N, *P], after local training.
      fleet: [N].
      group: [N] int32, of equal combinations.
      cluster: [N] int32 below N, within the group.
      part: [N] bool, who took part.
    """
    count = part.size
    place = kmeans.same(group * count + cluster, count)
    counted = jnp.where(part, place, count)
    met = jnp.bincount(counted, length=count)[place] > 0
    access = blocks.owned_groups(fleet.owned, task.blocks.modality)
    takes = access & classifier[None] & (met & _members(fleet))[:, None]

    def leaf(group, v):
      mean = kmeans.means(v, counted, count)[place]
      takes_it = takes[:, group].reshape((-1,) + (1,) * (v.ndim - 1))
      return jnp.where(takes_it, mean, v)

    return _by_group(task, leaf, every)

  def init(key, params):
    clients = setting.clients
    return HarmonyState(
      # Copies: a state's arrays are given away one by one.
      alone=tuple(
        one.init(key, jax.tree.map(jnp.copy, params)) for one in single
      ),
      own=frame.everyone(params, clients),
      distance=jnp.zeros((clients, len(names))),
      joined=jnp.zeros(clients, bool),
      round=jnp.int32(0),
    )

  def step(
    key, state: HarmonyState, population, hparams: HParams
  ) -> tuple[PyTree, RoundInfo]:
    begin = jnp.ceil(options.alone * hparams['rounds'])
    begin = begin.astype(jnp.int32)
    state, info = jax.lax.cond(
      state.round < begin,
      first_stage,
      partial(second_stage, begin),
      key,
      state,
      population,
      hparams,
    )
    info = info._replace(divergence=jnp.full(num, jnp.nan))
    return state._replace(round=state.round + 1), info

  return Algorithm(init, step, params=lambda state: state.own, personal=True)


def _encoders(task: Task) -> np.ndarray:
  """Groups of each modality's encoder, [M, G] bool."""
  found = np.zeros((len(task.modalities), task.num_blocks), bool)
  for m, groups in enumerate(task.blocks.layers):
    found[m, list(groups)] = True
  return found


def _by_group(task: Task, leaf, *trees: PyTree) -> PyTree:
  """Maps (group, *leaves) -> leaf over trees P."""
  return jax.tree.map(
    lambda group, *parts: jax.tree.map(partial(leaf, group), *parts),
    task.groups,
    *trees,
  )


def _members(fleet: Fleet) -> Array:
  """Who takes part in stage 2, [N] bool: two sensors or more, and data."""
  return (fleet.samples > 0) & (fleet.owned.sum(-1) > 1)


def _unimodal(task: Task, setting: Setting, m: int) -> Algorithm:
  """Builds the federation of modality number m: FedAvg among its owners."""
  modality = jnp.asarray(task.blocks.modality)
  groups = (modality == m) | (modality < 0)
  only = jnp.arange(len(task.modalities)) == m

  def plan(server, round: Round) -> Plan:
    del server
    owners = (round.active & round.fleet.owned[:, m])[:, None]
    trained = owners & groups[None]
    return Plan(owners & only[None], trained, trained.astype(jnp.float32))

  setting = setting._replace(
    # A program without the other encoders, whatever the buckets of stage 2.
    buckets=(buckets.Bucket(tuple(range(setting.cohort)), (m,)),),
    dropout=False,  # there is nothing to drop
    idle_power=False,
    cosines=False,
  )
  method = fedavg.fedavg(task, setting)._replace(plan=plan)
  return parallel.build(task, setting, method)


def _clustered(
  fleet: Fleet, distance: Array, members: int
) -> tuple[Array, Array]:
  """Groups of equal combinations, and the clusters within, [N] int32 each.

  Args:
    fleet: [N].
    distance: [N, M], of the encoders.
    members: per cluster.
  """
  count, modalities = fleet.owned.shape
  most = min(count, 2**modalities)  # none at all stands for no member
  owned = fleet.owned & _members(fleet)[:, None]
  code = (owned * 2 ** jnp.arange(modalities)[None]).sum(-1)
  group = kmeans.same(code, most)
  top = jax.ops.segment_max(distance, group, most)[group]
  scaled = distance / jnp.where(top > 0, top, 1.0)
  return group, kmeans.kmeans(scaled, group, most, members)


def _check(task: Task, setting: Setting) -> None:
  """Refuses what harmony has no use for; see there."""
  legality.codes(setting, 'harmony', 'sends classifiers, in full precision')
  legality.alone(setting, 'harmony')
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
