"""In the manner of FedAlign-MoE (https://arxiv.org/abs/2603.21276).

Devices differ in how they route and in what an expert of the same number has
become. A device's gate counts by the consistency of its routing q (mean
probabilities) with that of all, Q, and its loss keeps it near the Q of the
round before; an expert counts by how many others of its number say the same:

    gate weight = exp(-|q - Q|_1 / temperature),   loss + mu KL(q || Q)
    sig = mean output of an expert on anchors,  gam_ij = relu(cos(sig_i, sig_j))
    expert weight = n_s sum_j gam_ij of those that trained it; else n_s

Grade: reconstruction, from the abstract and a review: not the authors'
algorithm, and no figure of theirs can be expected. What devices train and how
they measure q is that of hfedmoe (parts/expert_choice.py). **Ours**: anchors
are the positive parts of normal vectors that everybody draws from one key, in
place of public data. There is one global model: of two devices that disagree
both count the same, as in the plain mean; only from three on is there a
majority.

*Budget* and *FLOPs*: of hfedmoe, signatures included. *Bytes*: as
there, q in place of usage, a signature per trained expert up, Q down. The
server holds the updates of the experts of all participants at once.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.aggregation.mean import Aggregator
from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import expert_choice
from relief_jax.algorithms.parts.expert_choice import Choice, ChoiceOptions
from relief_jax.clients import training
from relief_jax.clients.device import Device, Received, Update
from relief_jax.clients.work import local_sgd
from relief_jax.engine import ambient
from relief_jax.keys import LARGE, option, real, whole
from relief_jax.rounds import frame
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.scoring import targets
from relief_jax.settings import Setting
from relief_jax.task import Experts, Plan, Task
from relief_jax.types import Array

_LEAST = 1e-9


@dataclasses.dataclass(frozen=True)
class Options(ChoiceOptions):
  """Holds the options of the alignment."""

  temperature: float = option(
    real(0.1, 0, LARGE, 'of the weights of gates', above=True)
  )
  mu: float = option(real(0.1, 0, LARGE, 'weight of KL(q || Q) in the loss'))
  anchors: int = option(whole(16, 1, 10**4, 'that signatures are taken of'))


class Told(NamedTuple):
  """Holds what devices know beside the model.

  Attributes:
    routing: [n * E], Q.
    anchors: [A, H], drawn by everybody from one key and never sent.
  """

  routing: Array
  anchors: Array


def divergence(found: Array, wanted: Array) -> Array:
  """Computes KL(q || Q), []; 0 where Q is all 0.

  Args:
    found: [n * E], distributions of n mixtures, whose divergences add up.
    wanted: [n * E].
  """
  ratio = jnp.maximum(found, _LEAST) / jnp.maximum(wanted, _LEAST)
  return jnp.where(wanted.sum() > 0, (found * jnp.log(ratio)).sum(), 0.0)


def agreement(signature: Array, on: Array) -> Array:
  """Computes sum_j gam_ij over those that trained an expert, [K, E].

  Args:
    signature: [K, E, H].
    on: [K, E] bool, trained.
  """
  real = jnp.where(on[..., None], signature, 0.0)
  norm = jnp.sqrt(jnp.square(real).sum(-1, keepdims=True))
  unit = real / jnp.maximum(norm, _LEAST)
  cosine = jnp.einsum('neh,jeh->nje', unit, unit, precision='highest')
  return jnp.maximum(cosine, 0.0).sum(1)


def aligned(task: Task, experts: Experts, base: Aggregator) -> Aggregator:
  """Builds a mean in which experts count by their agreement.

  Args:
    task: the model.
    experts: of it.
    base: the mean of all other blocks; `Update.rows` are signatures [E, H].
  """
  chosen = jax.tree.map(lambda g: g in experts.blocks, task.groups)
  numbers = jax.tree.map(
    lambda g: experts.blocks.index(g) if g in experts.blocks else 0, task.groups
  )
  at = jnp.array(experts.blocks)

  def client(update, device):
    summed, _ = base.client(update, device)
    return summed, (tree.part(chosen, update.delta), update.rows)

  def server(summed, stacked, weight, trained):
    mean = base.server(summed, (), weight, trained)
    deltas, signature = stacked
    own = (weight * trained)[:, at]
    vote = own * agreement(signature, own > 0)
    share = jnp.where(vote.sum(0) > 0, vote, own)
    share /= jnp.maximum(share.sum(0), _LEAST)[None]

    def leaf(e, value):
      part = share[:, e].reshape((-1,) + (1,) * (value.ndim - 1))
      return jnp.where(part > 0, part * value, 0.0).sum(0)

    merged = jax.tree.map(
      lambda on, e, t: jax.tree.map(lambda v: leaf(e, v), t) if on else None,
      chosen,
      numbers,
      deltas,
    )
    return mean._replace(delta=tree.join(chosen, merged, mean.delta))

  return Aggregator(client, server, adds=True)


@Facts(options=Options, skips=True, budgeted=True, experts=True)
def fedalign_moe_style(task: Task, setting: Setting) -> Method:
  """Builds the alignment; with equal devices it is HFedMoE, uniform weights.

  Args:
    task: the model, with a mixture of experts.
    setting: the round, with `Options`. The server keeps Q [n * E], zeros at
      first.

  Raises:
    InputError: a model without experts.
  """
  experts = expert_choice.required(task, 'fedalign_moe_style')
  options: Options = setting.options
  beside = options.anchors * experts.each
  choice = Choice(task, setting, experts, True, beside)
  shape = options.anchors, experts.size
  base = fedavg.fedavg(task, setting)

  def consensus(round, usage: Array) -> Array:
    """Averages q over those who measured it, [n * E]; zeros of nobody."""
    active = round.active & (usage.sum(-1) > 0)
    weight = frame.weights(setting, round.fleet, active)
    return (weight[:, None] * usage).sum(0) / jnp.maximum(weight.sum(), _LEAST)

  def plan(server, round) -> Plan:
    found, routing = choice.plan(server, round)
    measured = found.trained.any(-1) & (routing.usage.sum(-1) > 0)
    usage = jnp.where(measured[:, None], routing.usage, 0.0)
    gap = jnp.abs(usage - consensus(round, usage)[None])
    near = jnp.exp(-experts.apart(gap).sum(-1) / options.temperature)
    weight = jnp.where(measured[:, None], near, 0.0)
    count = found.trained[:, choice.at].sum(-1).astype(jnp.float32)
    cost = found.cost
    return found._replace(
      counted=found.counted.at[:, np.array(experts.gates)].multiply(weight),
      client_args=usage,
      cost=cost._replace(
        # q, and no second number.
        upload=jnp.where(measured, 4.0 * len(choice.at), 0.0)
        + 4.0 * count * experts.size,
        download=jnp.where(found.trained.any(-1), 4.0 * len(choice.at), 0.0),
      ),
    )

  def objective(received: Received, device: Device):
    def loss(params, step):
      output = device.forward(params, step)
      weight = step.weight
      value = training.criterion(task)(
        output.logits, device.classes(step), weight
      )
      p, each = output.routing, targets.told(device.classes(step), weight)
      mean = experts.mean(p, experts.counted(p, each))
      gap = divergence(mean.ravel(), received.extra.routing)
      return value + experts.balance(p, each) + options.mu * gap

    return loss

  def client(received: Received, device: Device) -> Update:
    train = local_sgd(task, objective=objective, view=choice.view(device))
    update = train(received, device)
    after = jax.tree.map(jnp.add, received.params, update.delta)
    signature = experts.outputs(after, received.extra.anchors).mean(1)
    mine = device.trained[choice.at]
    return update._replace(rows=jnp.where(mine[:, None], signature, 0.0))

  def send(state) -> Received:
    # Once a round: everybody draws the same.
    anchors = jax.nn.relu(jax.random.normal(ambient.key(0), shape))
    return Received(state.params, Told(state.method_state, anchors))

  def server(state, mean, round):
    new = consensus(round, round.plan.client_args)
    kept = jnp.where(new.sum() > 0, new, state.method_state)
    return base.server(state._replace(method_state=kept), mean, round)

  return base._replace(
    plan=plan,
    client=client,
    aggregate=aligned(task, experts, base.aggregate),
    server=server,
    init=lambda params: jnp.zeros(len(choice.at)),
    send=send,
  )
