"""MMO-FL with prototypical modality mitigation (PMM).

https://arxiv.org/abs/2505.16138. Streams of windows whose sensors fail: a
device trains with the prototype of the label in the place of a feature that is
missing, and the server builds prototypes from the devices on which everything
works. Grade: secondary, a replication that cites equation numbers
(https://github.com/Sahir22/MMO_FL_Mini_Project).

Online gradient descent on the buffer (`config.online.stream`), plain mean over
all devices (eq. 7); with `owners` an encoder's is over those whose sensor
delivers. Prototypes are sums over windows; `means` takes the mean of
device means of eq. 16. Eq. 17 divides by the round, the replication by the
number of updates of a prototype, as here. Until a modality has a prototype its
slot is zero. A sensor that a device never had is missing like one that fails.
`refresh` builds prototypes every so many rounds only, `bits` quantises what is
sent of them. At test a missing feature is zero: the label is not known there.

Without prototypes (`substitute=False`) it is the baseline PM, FedAvg that skips
what is missing; ZF is FedAvg with `fill=input` and `fill_value=zero`, and FM
FedAvg in a world in which nothing is missing.

*Budget*: none. *Bytes*: beside the groups, prototypes down after every refresh
and sums up in it, of their own sensors, from devices on which all of them work;
a substituted modality's columns go both ways. *FLOPs*: a forward pass of the
encoders over the buffer where sums are made.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import blocks, costs, tree
from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import prototypes
from relief_jax.algorithms.parts.prototypes import Prototypes
from relief_jax.clients.device import Device, Received
from relief_jax.clients.training import criterion
from relief_jax.clients.work import local_sgd
from relief_jax.compressors import COMPRESSORS, Codec
from relief_jax.compressors import base as codes
from relief_jax.keys import MANY, name, option, switch, whole
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round, Traits
from relief_jax.settings import Setting
from relief_jax.task import CostOverride, Plan, Task
from relief_jax.types import Array, Fleet

BITS = (2, 4, 8, 32)
# Purpose of a client's key, beside those of `device`.
_SUMS = 1


class ServerState(NamedTuple):
  """Holds the server's state.

  Attributes:
    built: prototypes in full precision.
    sent: as devices get them.
  """

  built: Prototypes
  sent: Prototypes


def installed(fleet: Fleet) -> Array:
  """Marks installed sensors, delivering or not, [K, M] bool."""
  return fleet.owned if fleet.conditions is None else fleet.conditions.installed


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of MMO-FL."""

  substitute: bool = option(
    switch(True, 'a prototype for what is missing; False: PM')
  )
  owners: bool = option(
    switch(False, 'encoders are averaged over those whose sensor delivers')
  )
  means: bool = option(
    switch(False, 'prototypes are means of device means (eq. 16)')
  )
  bits: int = option(name(32, BITS, 'of what is sent of a prototype'))
  refresh: int = option(
    whole(1, 1, MANY, 'from one building of prototypes to the next', 'rounds')
  )


@Facts(options=Options, skips=True, classes=True)
def pmm(task: Task, setting: Setting) -> Method:
  """Builds MMO-FL; with every sensor working it trains as FedAvg does.

  Args:
    task: the model.
    setting: the round, with `Options`.
  """
  options = setting.options
  bits, refresh = options.bits, options.refresh
  codec = COMPRESSORS['none' if bits == 32 else f'int{bits}'](Codec())
  columns = jnp.asarray(blocks.columns(task))
  encoders = ~columns & (jnp.asarray(task.blocks.modality) >= 0)
  start = prototypes.init(task)
  message = jnp.asarray(
    [codes.wire_bytes(codec, v.shape) for v in start.mean.values()], jnp.float32
  )

  def coded(key, mean):
    return mean if bits == 32 else codes.transmit(codec, key, mean)

  def builds(round_index: Array) -> Array:
    return round_index % refresh == 0

  def plan(server, round: Round) -> Plan:
    known, whole = server.method_state, fedavg.everybody(setting, round)
    if options.owners:
      away = encoders[None] & ~round.access
      whole = whole._replace(counted=jnp.where(away, 0.0, whole.counted))
    if not options.substitute:
      return whole
    fleet, active = round.fleet, round.active[:, None]
    fillable = prototypes.known(known.sent, task)[None] & active
    filled = blocks.owned_groups(whole.run | fillable, task.blocks.modality)
    moved = whole.trained | (filled & columns[None] & active)
    tells = round.active & builds(round.round_index)
    tells &= (fleet.owned == installed(fleet)).all(-1)
    forward = costs.total(whole.run, task.work.fwd)
    fresh = (round.round_index > 0) & builds(round.round_index - 1)
    return whole._replace(
      trained=moved,
      client_args=tells,
      cost=CostOverride(
        received=blocks.owned_groups(whole.run, task.blocks.modality) & active
        | moved,
        upload=jnp.where(tells, costs.total(fleet.owned, message), 0.0),
        download=jnp.where(fresh, message.sum(), 0.0) * round.active,
        flops=jnp.where(tells, fleet.samples * forward, 0.0),
      ),
    )

  def objective(received: Received, device: Device):
    def loss(params, step):
      y = device.classes(step)

      def mend(features, run):
        return prototypes.substitute(received.extra, y, features, run)

      scores = device.forward(params, step, mend=mend).logits
      return criterion(task)(scores, y, step.weight)

    return loss

  def statistics(received: Received, device: Device):
    """Sums the device's features by class, where it is asked to."""
    everything = dict.fromkeys(task.modalities, jnp.float32(1.0))

    @tree.traced_once
    def measure():
      sums, _ = prototypes.survey(task, received.params, device, received.extra)
      sums = prototypes.weighted(sums, everything, options.means)
      key = jax.random.fold_in(device.key, _SUMS)
      return sums._replace(features=coded(key, sums.features))

    def nothing():
      return tree.zeros_like_output(measure)

    return tree.choose(device.args, measure, nothing, branch=device.branch)

  def updated(known: ServerState, sums, round: Round) -> ServerState:
    now = builds(round.round_index)
    built = prototypes.update(known.built, sums, now)
    key = jax.random.fold_in(round.key, 0)
    fresh = built._replace(mean=coded(key, built.mean))
    sent = jax.tree.map(lambda a, b: jnp.where(now, a, b), fresh, known.sent)
    return ServerState(built, sent)

  base = fedavg.fedavg(task, setting)._replace(plan=plan)
  if not options.substitute:
    return base
  train = local_sgd(task, objective=objective)

  def client(received: Received, device: Device):
    sums = statistics(received, device)
    return train(received, device)._replace(sums=sums)

  def server(state, mean, round: Round):
    known = updated(state.method_state, mean.sums, round)
    return base.server(state._replace(method_state=known), mean, round)

  return base._replace(
    client=client,
    server=server,
    init=lambda params: ServerState(start, jax.tree.map(jnp.copy, start)),
    send=lambda server: Received(server.params, server.method_state.sent),
    traits=Traits(sums=True),
  )
