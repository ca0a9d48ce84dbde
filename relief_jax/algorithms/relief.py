"""RELIEF (https://arxiv.org/abs/2604.04243).

Three uses of one cut: each modality-aligned block is averaged only within the
cohort that trained it, each device trains the blocks that diverge most within
its budget, and only trained blocks are sent. **[paper]**: cohort mean of
updates, divergence first, EMA, personal budgets. **[ours]**: what the paper
leaves open; the alternatives are options, and parts of their own: scores and
norms, shrinkage, confidence in the sensors. Grade: published in its abstract,
captions and theorems, the rest is ours.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.algorithms.fedavg import fedavg
from relief_jax.algorithms.parts import norms, scores
from relief_jax.algorithms.parts.sensor_confidence import with_confidence
from relief_jax.algorithms.parts.shrinkage import with_shrinkage
from relief_jax.budgets import BUDGETS, memory
from relief_jax.budgets.greedy import SLACK
from relief_jax.errors import InputError, unknown
from relief_jax.keys import LARGE, MANY, name, option, real, switch, whole
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array

RULES = tuple(scores.RULES)


class ServerState(NamedTuple):
  """Holds the server's state between rounds.

  Attributes:
    divergence: [G] D_g; +inf until two devices trained it together.
    magnitude: [G] EMA of |mean|^2 / |theta_g|; +inf until trained.
  """

  divergence: Array
  magnitude: Array


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of RELIEF (arXiv 2604.04243)."""

  rule: str = option(name('greedy', RULES, 'how groups are selected'))
  norm: str = option(name('per_param', tuple(norms.NORMS), 'of the divergence'))
  max_stale: int = option(
    whole(0, 0, MANY, 'a group is then trained whatever it costs; 0: never')
  )
  shrinkage: bool = option(
    switch(False, 'of cohort means towards the global mean')
  )
  denominator: str = option(
    name(
      'contributors',
      ('contributors', 'cohort'),
      'a group is averaged over those who trained it, or over all who own '
      'its sensor',
    )
  )
  confidence: bool = option(
    switch(False, 'cohort means weighted by it (parts/sensor_confidence.py)')
  )
  beta: float = option(
    real(2.0, 0, LARGE, 'of the confidence, as in qqr_style')
  )
  start: int = option(
    whole(5, 0, MANY, 'of the confidence, as in qqr_style', 'rounds')
  )


@Facts(options=Options, skips=True, budgeted=True)
def relief(task: Task, setting: Setting) -> Method:
  """Builds RELIEF (arXiv 2604.04243) with all its options.

  Args:
    task: the model.
    setting: the round, with `Options`.

  Raises:
    InputError: an unknown rule, the knapsack over more than 12 blocks, or a
      robust mean over a whole cohort.
  """
  options = setting.options
  _check(setting)
  method = core(task, setting)
  if options.shrinkage:
    method = with_shrinkage(task, method)
  if options.confidence:
    method = with_confidence(
      task, method, setting.clients, options.beta, options.start
    )
  return method


def core(task: Task, setting: Setting) -> Method:
  """Trains each block where it diverges, averages it over its trainers.

  What a device keeps is the round in which it last trained each block, [G].
  """
  base, options, num = fedavg(task, setting), setting.options, task.num_blocks
  score, norm = scores.RULES[options.rule], norms.NORMS[options.norm]
  whole_cohort = options.denominator == 'cohort'

  def plan(server, round):
    known = scores.Known(*server.method_state, round.clients)
    run = round.fleet.owned & round.active[:, None]
    # A device on its first turn has waited for ever only if never chosen.
    overdue = round.round_index - known.last > options.max_stale
    rows = run, round.access, round.limit, score(known, round), known.last
    trained = jax.vmap(partial(choose, task, setting))(*rows, overdue)
    trained &= round.active[:, None]
    works = trained.any(-1, keepdims=True)
    # Who sits the round out takes no part and does not dilute it either.
    counted = round.access & works if whole_cohort else trained
    return Plan(run & works, trained, counted.astype(jnp.float32))

  def server(state, mean, round):
    old, ema = state.method_state, round.hparams['ema']
    new = ServerState(
      norms.blend(old.divergence, norm(task, mean), ema, mean.trainers >= 2),
      norms.blend(
        old.magnitude, mean.sq_norm / task.work.size, ema, mean.trainers >= 1
      ),
    )
    state, last = base.server(state._replace(method_state=new), mean, round)
    return state, jnp.where(round.plan.trained, round.round_index, last)

  return base._replace(
    plan=plan,
    server=server,
    aggregate=norms.measured(task, options.norm, base.aggregate),
    init=lambda params: ServerState(
      *(jnp.full(num, jnp.inf, jnp.float32),) * 2
    ),
    client_init=lambda params: jnp.full(num, -1, jnp.int32),
    divergence=lambda state: state.divergence,
  )


def choose(
  task: Task, setting: Setting, run, access, limit, score, last, overdue
) -> Array:
  """Chooses one client's blocks, [G] bool: the best that fit its budget.

  Args:
    task: the model.
    setting: the round, with the method's options.
    run: [M] bool, branches in the forward pass.
    access: [G] bool, blocks in reach.
    limit: FLOPs per sample, and memory.
    score: [G].
    last: [G] int32, the round in which it last trained them; the ties.
    overdue: [G] bool, waited longer than `max_stale`.
  """
  num, options = task.num_blocks, setting.options
  rule, always = options.rule, jnp.asarray(task.blocks.always)
  price, budget = memory.priced(task, setting.memory_step, run, limit)

  def cost(chosen):
    return price(chosen | always)

  if rule == 'greedy_ratio':
    alone = jax.vmap(cost)(jnp.eye(num, dtype=bool))
    score = score / jnp.maximum(alone - cost(jnp.zeros(num, bool)), 1.0)
  if options.max_stale:
    score = jnp.where(overdue, jnp.inf, score)
  pack = BUDGETS['knapsack' if rule == 'knapsack' else 'greedy']
  tie = last.astype(jnp.float32)
  chosen = pack(score, tie, cost, access & ~always, budget)
  fits = cost(jnp.zeros(num, bool)) <= budget * (1 + SLACK)
  return (chosen | always) & fits


def _check(setting: Setting) -> None:
  """Refuses options that mean nothing; see `relief`."""
  options = setting.options
  if options.rule not in RULES:
    raise unknown('selection rule', options.rule, RULES)
  if options.denominator == 'cohort' and setting.guard.robust:
    raise InputError(
      f'config.relief.denominator=cohort with config.mean={setting.guard.mean}',
      'contributors: who did not train has no vote in such a mean',
      'set --config.relief.denominator=contributors',
    )
