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

from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import blocks, costs, tree
from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import prototypes
from relief_jax.algorithms.parts.prototypes import Prototypes
from relief_jax.clients.training import cross_entropy
from relief_jax.compressors import COMPRESSORS, Codec, base
from relief_jax.rounds import parallel
from relief_jax.rounds.method import Context, Learner, Merge, Recipe
from relief_jax.settings import Setting
from relief_jax.types import Algorithm, Array, Charge, Fleet, Plan, Task

BITS = (2, 4, 8, 32)
# Purpose of a client's key, beside those of `device`.
_SUMS = 1


class Memory(NamedTuple):
  """What the server remembers.

  Attributes:
    built: prototypes in full precision.
    sent: as devices get them.
  """

  built: Prototypes
  sent: Prototypes


def on_board(fleet: Fleet) -> Array:
  """Sensors that devices have, delivering or not, [K, M] bool."""
  return fleet.owned if fleet.scene is None else fleet.scene.on_board


def pmm(task: Task, setting: Setting) -> Algorithm:
  """MMO-FL; with every sensor working it trains as FedAvg does.

  Args:
    task: the model.
    setting: the round; `options` holds `substitute`, `owners`, `means`, `bits`
      (of a prototype's number) and `refresh` (rounds).
  """
  options = setting.options
  bits, refresh = options['bits'], options['refresh']
  codec = COMPRESSORS['none' if bits == 32 else f'int{bits}'](Codec())
  columns = jnp.asarray(blocks.columns(task))
  encoders = ~columns & (jnp.asarray(task.group_modality) >= 0)
  start = prototypes.init(task)
  message = jnp.asarray(
    [base.wire_bytes(codec, v.shape) for v in start.mean.values()], jnp.float32
  )

  def coded(key, mean):
    return mean if bits == 32 else base.transmit(codec, key, mean)

  def builds(number: Array) -> Array:
    return number % refresh == 0

  def plan(memory: Memory, context: Context) -> Plan:
    whole = fedavg.plan(setting, context)
    if options['owners']:
      away = encoders[None] & ~context.access
      whole = whole._replace(counted=jnp.where(away, 0.0, whole.counted))
    if not options['substitute']:
      return whole
    fleet, active = context.fleet, context.active[:, None]
    fillable = prototypes.known(memory.sent, task)[None] & active
    filled = blocks.owned_groups(whole.run | fillable, task.group_modality)
    moved = whole.trained | (filled & columns[None] & active)
    tells = context.active & builds(context.round)
    tells &= (fleet.owned == on_board(fleet)).all(-1)
    forward = costs.total(whole.run, task.work.fwd)
    fresh = (context.round > 0) & builds(context.round - 1)
    return whole._replace(
      trained=moved,
      piece=tells,
      charge=Charge(
        received=blocks.owned_groups(whole.run, task.group_modality) & active
        | moved,
        upload=jnp.where(tells, costs.total(fleet.owned, message), 0.0),
        download=jnp.where(fresh, message.sum(), 0.0) * context.active,
        flops=jnp.where(tells, fleet.samples * forward, 0.0),
      ),
    )

  def objective(learner: Learner):
    def loss(params, step):
      y = learner.y(step)

      def mend(features, run):
        return prototypes.substitute(learner.sent, y, features, run)

      scores = learner.forward(params, step, mend=mend).logits
      return cross_entropy(scores, y, step.weight)

    return loss

  def tell(params, learner: Learner):
    everything = dict.fromkeys(task.modalities, jnp.float32(1.0))

    def measure():
      sums, _ = prototypes.survey(task, params, learner, learner.sent)
      sums = prototypes.weighted(sums, everything, options['means'])
      key = jax.random.fold_in(learner.client.key, _SUMS)
      return sums._replace(features=coded(key, sums.features))

    def nothing():
      return tree.zeros_like_output(measure)

    tells = learner.client.piece
    return tree.choose(tells, measure, nothing, branch=learner.branch), ()

  def remember(memory: Memory, merge: Merge, plan: Plan, context: Context):
    del plan
    now = builds(context.round)
    built = prototypes.update(memory.built, merge.told, now)
    key = jax.random.fold_in(context.key, 0)
    fresh = built._replace(mean=coded(key, built.mean))
    sent = jax.tree.map(lambda a, b: jnp.where(now, a, b), fresh, memory.sent)
    return Memory(built, sent)

  recipe = Recipe(plan=plan)
  if options['substitute']:
    recipe = Recipe(
      plan=plan,
      memory=lambda: Memory(start, start),
      send=lambda memory: memory.sent,
      objective=objective,
      tell=tell,
      remember=remember,
    )
  return parallel.federated(task, setting, recipe)
