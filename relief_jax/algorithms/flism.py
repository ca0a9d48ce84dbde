"""FLISM (https://arxiv.org/abs/2405.11828): sensors that are not there.

Three terms on top of FedAvg with uniform weights. *Contrast*: the features of
a batch and of a second view of it, with sensors left out and noise added, are
pulled together by class (SupCon, https://arxiv.org/abs/2004.11362).
*Weights*: a device counts by 1 / entropy, the mean entropy of the new model's
soft-max over the device's own windows. *Teacher*: the plain mean of the same
updates comes along in the next round, and KL(teacher || model) is added.
Grade: published code (https://github.com/AdibaOrz/FLISM).

Departures: features are those of all encoders side by side, without the code's
projection head; the first view is the batch of the cross-entropy itself, which
the code runs again. **Ours**: entropies below `floor` count as `floor`, since
devices with few classes would dominate; `metrics.jsonl` logs the weights.

*Budget*: none. *Bytes*: a second model down, in float32 whatever the codec,
and a number up. *FLOPs*: a second forward and backward pass where there are two
views, a forward pass of the teacher, and one over the device's own windows for
the entropy. A little too many for the second view, which ends before the
fusion, and none for the contrast of pairs: both a few percent.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from relief_jax import blocks, costs, tree
from relief_jax.aggregation.mean import with_sums
from relief_jax.algorithms import fedavg
from relief_jax.clients import batches, noise
from relief_jax.clients.device import Device, Received
from relief_jax.clients.training import criterion
from relief_jax.clients.work import local_sgd
from relief_jax.errors import InputError
from relief_jax.keys import option, real, switch
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round, Traits
from relief_jax.settings import Setting
from relief_jax.task import CostOverride, Plan, Task
from relief_jax.types import Array

# Purpose of a client's key, beside those of `device`.
_VIEW = 1


def second_view(key: Array, owned: Array) -> Array:
  """Draws the sensors left in the second view of a round, [M] bool.

  Of n owned ones 1 to n - 1 are left out, each number as likely as the others,
  then each set of that size.

  Args:
    key: of the round and the client.
    owned: [M] bool, two or more.
  """
  count_key, order_key = jax.random.split(key)
  count = owned.sum()
  out = jax.random.randint(count_key, (), 1, jnp.maximum(count, 2))
  order = jnp.where(owned, jax.random.uniform(order_key, owned.shape), 2.0)
  return owned & (jnp.argsort(jnp.argsort(order)) >= out)


def supcon(
  first: Array, second: Array, y: Array, weight: Array, temperature: float
) -> Array:
  """Computes the supervised contrastive loss of two views, [].

  For every view of every sample: minus the mean log-probability of its
  positives (all other views of its class), where the probability of a view is
  the soft-max of cosines over all views but the sample's own.

  Args:
    first: [B, d] features.
    second: [B, d] features of the same samples.
    y: [B] classes.
    weight: [B], 0 for padding.
    temperature: of the soft-max.
  """
  z = jnp.concatenate([first, second])
  y, real = jnp.tile(y, 2), jnp.tile(weight > 0, 2)
  # Dead features have length 0, and no direction.
  z *= jax.lax.rsqrt(jnp.maximum(jnp.square(z).sum(-1, keepdims=True), 1e-12))
  scores = jnp.matmul(z, z.T) / temperature
  other = real[None] & ~jnp.eye(y.size, dtype=bool)
  logs = scores - jax.nn.logsumexp(scores, axis=-1, where=other, keepdims=True)
  positive = other & (y[:, None] == y[None])
  each = jnp.where(positive, logs, 0.0).sum(-1)
  each /= jnp.maximum(positive.sum(-1), 1)
  return -jnp.where(real, each, 0.0).sum() / jnp.maximum(real.sum(), 1)


def entropy(logits: Array) -> Array:
  """Computes the entropy of the soft-max in nats, [..., C] -> [...]."""
  logs = jax.nn.log_softmax(logits)
  return -(jnp.exp(logs) * logs).sum(-1)


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of FLISM."""

  contrast: bool = option(switch(True, 'of two views of a batch'))
  temperature: float = option(real(0.1, 1e-3, 1000, 'of the contrast'))
  noise: float = option(real(0.7, 0, 1000, 'deviation, in the second view'))
  entropy: bool = option(switch(True, 'devices count by 1 / entropy'))
  floor: float = option(
    real(0.1, 1e-6, 1000, 'entropies below it count as it', 'nats')
  )
  kd: float = option(real(1.0, 0, 1000, "of the teacher's term; 0: no teacher"))


@Facts(options=Options, fill='input', classes=True)
def flism(task: Task, setting: Setting) -> Method:
  """Builds FLISM; with `contrast` and `entropy` off and `kd` 0 it is FedAvg.

  Args:
    task: the model.
    setting: the round, with `Options`.

  Raises:
    InputError: a contrast of features that no group trains.
  """
  options = setting.options
  contrast, teach = options.contrast, options.kd > 0
  if contrast:
    blocks.features(task, "'flism'")
  if contrast and not any(task.blocks.layers):
    raise InputError(
      'config.flism.contrast with encoders that are all frozen',
      'encoders that train: the contrast is of their features',
      'set --config.flism.contrast=False, --config.model.adapters=True or '
      '--config.backbone=cnn',
    )

  def plan(server, round: Round) -> Plan:
    del server
    whole, fleet = fedavg.everybody(setting, round), round.fleet
    keys = jax.vmap(jax.random.fold_in, (0, None))(
      batches.client_keys(round.key, fleet), _VIEW
    )
    left = jax.vmap(second_view)(keys, fleet.owned)
    seen = whole.run if setting.fill == 'input' else whole.run & left
    moved = whole.trained & blocks.owned_groups(seen, task.blocks.modality)
    nothing = jnp.zeros_like(whole.trained)
    once = costs.step_flops(task.work, whole.run, nothing)
    flops = teach * once
    if contrast:
      again = costs.step_flops(task.work, seen, moved)
      flops += jnp.where(fleet.owned.sum(-1) > 1, again, 0.0)
    flops *= setting.samples(fleet)
    if options.entropy:
      flops += once * fleet.samples
    received = blocks.owned_groups(whole.run, task.blocks.modality)
    cost = CostOverride(
      download=teach * costs.total(received, 4.0 * task.work.size),
      upload=jnp.full(once.shape, 4.0 * options.entropy),
      flops=flops,
    )
    return whole._replace(client_args=left, cost=cost)

  def objective(received: Received, device: Device):
    several = device.fleet.owned.sum() > 1
    left = device.args

    def noisy(step):
      def add(m, x):
        key = jax.random.fold_in(step.key, m)
        return x + options.noise * noise.normal(key, x.shape)

      return add

    def contrasted(params, step, first, y):
      if setting.fill == 'input':
        view = step._replace(sensed=step.sensed & left)
      else:
        view = step._replace(run=step.run & left)
      second = device.forward(params, view, noisy(step)).features
      sides = (
        jnp.concatenate([f.reshape(len(y), -1) for f in side.values()], -1)
        for side in (first, second)
      )
      return supcon(*sides, y, step.weight, options.temperature)

    def loss(params, step):
      found, y = device.forward(params, step), device.classes(step)
      value = criterion(task)(found.logits, y, step.weight)
      if contrast:
        value += tree.choose(
          several,
          contrasted,
          lambda *_: jnp.float32(0.0),
          params,
          step,
          found.features,
          y,
          branch=device.branch,
        )
      if teach:
        target = device.forward(received.extra, step).logits
        each = optax.kl_divergence(
          jax.nn.log_softmax(found.logits), jax.nn.softmax(target)
        )
        total = jnp.maximum(step.weight.sum(), 1e-9)
        value += options.kd * tree.scale(step.weight, each).sum() / total
      return value

    return loss

  base, num = fedavg.fedavg(task, setting), task.num_blocks
  own = objective if contrast or teach else None
  train = local_sgd(task, objective=own)

  def client(received: Received, device: Device):
    update = train(received, device)
    if not options.entropy:
      return update
    params = jax.tree.map(jnp.add, received.params, update.delta)
    mean = device.average(
      lambda step: entropy(device.forward(params, step).logits)
    )
    weight = 1 / jnp.maximum(mean, options.floor)
    return update.weighted(jnp.full(num, weight))

  method = base._replace(
    plan=plan,
    client=client,
    traits=Traits(finds_weights=bool(options.entropy)),
  )
  if not teach:
    return method

  def plain(update, device):
    """Sums updates by the plan's weights, for the plain mean."""
    weight = tree.broadcast_groups(task.groups, device.weight)
    return tree.scale(weight, update.delta), device.weight

  def server(state, mean, round):
    total, weight = mean.extra
    plain_mean = tree.divide(total, tree.broadcast_groups(task.groups, weight))
    teacher = jax.tree.map(jnp.add, state.params, plain_mean)
    return base.server(state._replace(method_state=teacher), mean, round)

  return method._replace(
    aggregate=with_sums(base.aggregate, plain),
    server=server,
    # The first teacher is the first model.
    init=lambda params: jax.tree.map(jnp.copy, params),
    send=lambda server: Received(server.params, server.method_state),
  )
