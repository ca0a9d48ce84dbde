"""Chooses the experts of a mixture that a device trains, under its budget.

A device routes one batch of its own windows by the model that it is sent, with
probabilities p_s of sample s, and scores the experts by

    sc = lam mean_s p + (1 - lam) max_s p
    I = sc - beta mean_s p log(p / mean_s p)

(HFedMoE, https://arxiv.org/abs/2601.00583, equations 3-5 and 14: importance
less the information that routing tells of the sample). In a transformer samples
are tokens, and the experts of all its mixtures are chosen among together. Of
the experts that some sample is routed to it trains the best that fit; who
affords all trains all. **Ours**: one batch in place of all windows; gates and
head always train, then encoders and columns, or embeddings and blocks, as far
as they fit, then experts; who cannot afford to measure trains gates and head
alone.

Two forms. `backward`: samples see their own k of all experts, which are all
sent; of the others nothing is trained. `routed` (**ours**): the gate routes to
the device's experts alone, so that forward pass, memory and download are
theirs.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, costs
from relief_jax.algorithms.parts import one_batch
from relief_jax.budgets import memory
from relief_jax.budgets.greedy import SLACK, greedy
from relief_jax.clients import batches
from relief_jax.errors import InputError
from relief_jax.keys import LARGE, name, option, real, whole
from relief_jax.rounds.method import Round
from relief_jax.scoring import targets
from relief_jax.settings import Setting
from relief_jax.task import CostOverride, Experts, Plan, Task
from relief_jax.types import Array, PyTree

# Purpose of a device's key: the choice at random. 0 is taken by local steps.
_RANDOM = 2


@dataclasses.dataclass(frozen=True)
class ChoiceOptions:
  """Holds the options of the choice of experts."""

  rule: str = option(
    name(
      'importance',
      ('importance', 'usage', 'random'),
      'experts of a device, in this order while they fit',
    )
  )
  form: str = option(
    name(
      'backward',
      ('backward', 'routed'),
      'others are not trained, or not even on the device',
    )
  )
  most: int = option(whole(0, 0, 1000, 'experts of a device; 0: what fits'))
  lam: float = option(
    real(0.5, 0, 1, 'weight of the mean in a score, the rest: of the largest')
  )
  beta: float = option(
    real(0.1, 0, LARGE, 'weight of the information in the importance')
  )


class Routing(NamedTuple):
  """Holds what devices found of their routing; zeros where none was measured.

  Attributes:
    usage: [K, n * E] mean p.
    score: [K, n * E] sc.
    importance: [K, n * E] I.
    routed: [K, n * E] bool, some sample is routed there.
  """

  usage: Array
  score: Array
  importance: Array
  routed: Array


class Measuring(NamedTuple):
  """Says who measures; each [K].

  Attributes:
    measures: bool.
    extra: FLOPs of it per sample of the round.
    whole: bool, affords to train all blocks.
  """

  measures: Array
  extra: Array
  whole: Array


def required(task: Task, method: str) -> Experts:
  """Gives the model's mixture.

  Raises:
    InputError: it has none.
  """
  if task.experts is None:
    raise InputError(
      f'{method!r} with a model without a mixture of experts',
      'one whose fusion, or whose last blocks, are such a mixture',
      'set --config.backbone=cnn --config.model.fusion=experts, or of the '
      'transformer --config.model.experts.blocks=1',
    )
  return task.experts


def found(
  options: ChoiceOptions, experts: Experts, p: Array, weight: Array
) -> Routing:
  """Scores the experts by one device's probabilities.

  Args:
    options: of the score.
    experts: of the model.
    p: [B, ..., n, E].
    weight: [B] or [B, ...], 0 of samples and tokens that do not count.
  """
  on = experts.counted(p, weight)
  real, over = jnp.where(on, p, 0.0), tuple(range(p.ndim - 2))
  mean = experts.mean(real, on)
  score = options.lam * mean + (1 - options.lam) * real.max(over)
  ratio = real / jnp.broadcast_to(jnp.maximum(mean, 1e-9), p.shape)
  told = jnp.where(real > 0, real * jnp.log(jnp.maximum(ratio, 1e-9)), 0.0)
  importance = score - options.beta * experts.mean(told, on)
  routed = (experts.weigh(real) > 0).any(over)
  return Routing(*(v.ravel() for v in (mean, score, importance, routed)))


class Choice:
  """Chooses what devices train of a model with a mixture.

  Args:
    task: the model.
    setting: the round; its options are `ChoiceOptions`.
    experts: of the model.
    weighs: what devices measure is needed beside the choice.
    beside: FLOPs of a round for each expert that a device trains.
  """

  def __init__(
    self,
    task: Task,
    setting: Setting,
    experts: Experts,
    weighs: bool,
    beside: float = 0.0,
  ):
    self.task, self.setting, self.experts = task, setting, experts
    self.weighs, self.beside = weighs, beside
    self.options: ChoiceOptions = setting.options
    self.at = np.array(experts.blocks)
    self.is_expert = np.isin(np.arange(task.num_blocks), self.at)
    self.whole = self.options.form == 'backward'

  def held(self, trained: Array) -> Array:
    """Counts the experts that a device has, [..., n] of [..., G]."""
    own = self.experts.apart(trained[..., self.at])
    count = own.sum(-1).astype(jnp.float32)
    return jnp.full_like(count, own.shape[-1]) if self.whole else count

  def received(self, run: Array, trained: Array) -> Array:
    """Marks the blocks on a device, [..., G]."""
    every = blocks.owned_groups(run, self.task.blocks.modality)
    if self.whole:
      return every
    others = jnp.broadcast_to(~self.is_expert, trained.shape)
    return every & (trained | others)

  def price(self, run: Array, limit: memory.Limit, samples: Array):
    """Gives the price of one client's sets of blocks, and its budget.

    As `memory.priced`, with what is beside the training and at most `most`.
    """
    task = self.task

    def flops(trained):
      work = task.work
      if not self.whole:
        work = self.experts.work(self.held(trained))
      cost = costs.step_flops(work, run, trained)
      count = trained[self.at].sum()
      if self.beside:
        cost += count * self.beside / jnp.maximum(samples, 1)
      if self.options.most:
        cost = jnp.where(count > self.options.most, jnp.inf, cost)
      return cost

    price, budget = memory.priced(
      task,
      self.setting.memory_step,
      run,
      limit,
      flops,
      partial(self.received, run),
    )
    return price, jnp.minimum(budget, memory.LARGEST)

  def measuring(self, round: Round) -> Measuring:
    """Finds who measures, what that costs, and who has nothing to choose."""
    task, setting = self.task, self.setting
    run, always = round.fleet.owned, jnp.asarray(task.blocks.always)
    nothing = jnp.zeros((len(run), task.num_blocks), bool)
    once = costs.step_flops(self.experts.routing, run, nothing)
    extra = once * setting.batch / jnp.maximum(setting.samples(round.fleet), 1)

    def one(run, access, limit, fleet, extra):
      cost, budget = self.price(run, limit, self.setting.samples(fleet))
      bound = budget * (1 + SLACK)
      whole = cost(access) + (extra if self.weighs else 0.0) <= bound
      return whole, cost(always) + extra <= bound

    whole, able = jax.vmap(one)(
      run, round.access, round.limit, round.fleet, extra
    )
    measures = round.active & able & (self.weighs | ~whole)
    return Measuring(measures, jnp.where(measures, extra, 0.0), whole)

  def routing(self, server, round: Round, who: Measuring) -> Routing:
    """Measures the participants' routing."""
    task, setting = self.task, self.setting

    def routed(seen: one_batch.Seen) -> Routing:
      p = self.experts.route(seen.params, seen.features, seen.run)
      weight = targets.told(seen.y, jnp.ones(len(seen.y)))
      return found(self.options, self.experts, p, weight)

    return one_batch.measure(
      task, setting, server.params, round, who.measures, who.extra, routed
    )

  def plan(self, server, round: Round) -> tuple[Plan, Routing]:
    """Plans what devices train; all that is trained counts the same."""
    who = self.measuring(round)
    routing = self.routing(server, round, who)
    score = {
      'importance': lambda: routing.importance,
      'usage': lambda: routing.usage,
      'random': lambda: self.drawn(round),
    }[self.options.rule]()
    run = round.fleet.owned & round.active[:, None]
    trained = jax.vmap(self.choose)(
      run,
      round.access,
      round.limit,
      score,
      routing.routed,
      who.extra,
      self.setting.samples(round.fleet),
    )
    trained = jnp.where(who.whole[:, None], round.access, trained)
    trained &= round.active[:, None]
    run &= trained.any(-1, keepdims=True)
    extra = jnp.where(trained.any(-1), who.extra, 0.0)
    told = len(self.at) + len(self.experts.gates)
    cost = CostOverride(
      flops=extra * self.setting.samples(round.fleet)
      + self.beside * trained[:, self.at].sum(-1),
      # Usage of all experts and a number more for each gate, for the weights.
      upload=jnp.where(extra > 0, 4.0 * told, 0.0),
    )
    if not self.whole:
      cost = cost._replace(
        work=jax.vmap(self.experts.work)(self.held(trained)),
        received=self.received(run, trained) & trained.any(-1, keepdims=True),
        memory=self.needed(run, trained),
      )
    weights = trained.astype(jnp.float32)
    return Plan(run, trained, weights, cost=cost), routing

  def needed(self, run: Array, trained: Array) -> Array | None:
    """Computes the memory of training, [K] bytes; None if nobody counted."""
    if self.task.memory is None:
      return None
    held = self.received(run, trained)
    step = self.setting.memory_step
    return memory.needed(self.task, step, run, trained, held)

  def drawn(self, round: Round) -> Array:
    """Draws the order of the experts, [K, n * E]."""
    keys = batches.client_keys(round.key, round.fleet)
    return jax.vmap(
      lambda key: jax.random.uniform(
        jax.random.fold_in(key, _RANDOM), (len(self.at),)
      )
    )(keys)

  def choose(self, run, access, limit, score, routed, extra, samples) -> Array:
    """Chooses one client's blocks, [G] bool.

    Args:
      run: [M] bool, branches in the forward pass.
      access: [G] bool, blocks in reach.
      limit: FLOPs per sample, and memory.
      score: [n * E].
      routed: [n * E] bool.
      extra: [] FLOPs per sample of the measurement.
      samples: [] of the round.
    """
    num, always = self.task.num_blocks, jnp.asarray(self.task.blocks.always)
    price, budget = self.price(run, limit, samples)

    def cost(chosen):
      return price(chosen | always) + extra

    order = jnp.full(num, jnp.inf).at[self.at].set(score)
    among = access.at[self.at].set(routed) & ~always
    tie = jnp.zeros(num)
    chosen = greedy(order, tie, cost, among, budget)
    fits = cost(jnp.zeros(num, bool)) <= budget * (1 + SLACK)
    return (chosen | always) & fits

  def view(self, device):
    """Gives P -> P, the parameters that a device computes with; or None."""
    if self.whole:
      return None
    return partial(_within, self.experts, device.trained[self.at])


def _within(experts: Experts, held: Array, params: PyTree) -> PyTree:
  return experts.within(params, held)
