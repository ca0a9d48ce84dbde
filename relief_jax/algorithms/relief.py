"""RELIEF (https://arxiv.org/abs/2604.04243).

Three uses of one cut: each modality-aligned group is averaged only within the
cohort that trained it, each device trains the groups that diverge most within
its budget, and only trained groups are sent. **[paper]**: cohort mean of
updates, divergence first, EMA, personal budgets. **[ours]**: everything that
relief.md section 3 marks so; the alternatives are options.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import costs, tree
from relief_jax.algorithms.parts import sensor_confidence
from relief_jax.budgets import BUDGETS
from relief_jax.clients import batches
from relief_jax.errors import InputError, unknown
from relief_jax.rounds import parallel
from relief_jax.rounds.method import Context, Merge, Recipe
from relief_jax.settings import Setting
from relief_jax.types import Algorithm, Array, Plan, PyTree, Task

RULES = (
  'greedy',
  'greedy_ratio',
  'knapsack',
  'aged',
  'random',
  'round_robin',
  'magnitude',
  'static',
)


class Memory(NamedTuple):
  """What the server remembers between rounds.

  Attributes:
    divergence: [G] D_g; +inf until two devices trained it together.
    magnitude: [G] EMA of |mean|^2 / |theta_g|; +inf until trained.
    last: [N, G] int32, round in which a device last trained a group, -1
      never.
    quality: of the sensors, () without `confidence`.
  """

  divergence: Array
  magnitude: Array
  last: Array
  quality: PyTree = ()


def observed(norm: str, merge: Merge, size: Array) -> Array:
  """d_g in the chosen norm, [G].

  Args:
    norm: `raw` |.|^2; `per_param` divided by the group's size, else big
      groups win by size alone; `relative` divided by |mean|^2 and by its
      pure-noise value |T_g|, else it measures the cohort's size; `cosine`
      on updates scaled to length 1.
    merge: of the round; for `cosine` its `extra` holds the sum of unit
      updates.
    size: [G] numbers in each group.
  """
  if norm == 'raw':
    return merge.spread
  if norm == 'per_param':
    return merge.spread / size
  if norm == 'relative':
    scale = merge.mean_sq * jnp.maximum(merge.trainers, 1)
    return merge.spread / jnp.maximum(scale, 1e-30)
  unit_sq = tree.divide(merge.extra, jnp.square(merge.weight))
  return jnp.maximum(1 - unit_sq, 0.0)


def blend(old: Array, new: Array, ema: Array, seen: Array) -> Array:
  """(1 - ema) old + ema new where seen; the first observation replaces inf."""
  mixed = jnp.where(jnp.isinf(old), new, (1 - ema) * old + ema * new)
  return jnp.where(seen, mixed, old)


def shrink(merge: Merge) -> Array:
  """Share kept of each block under shrinkage (relief.md section 8, ours), [G].

  The update is (1 - lambda) cohort mean + lambda global mean. Here devices
  outside the cohort send nothing, so the global mean is c = |T_g| / K times
  the cohort's, and lambda minimises the error of section 4's identity with
  sigma^2 and the true mean's norm estimated from this round's updates.

  Args:
    merge: of the round.
  """
  count = jnp.maximum(merge.trainers, 1.0)
  noise = merge.spread / jnp.maximum(count - 1, 1.0)  # sigma^2 / |T_g|
  signal = jnp.maximum(merge.mean_sq - noise, 0.0)
  best = signal / jnp.maximum(signal + noise, 1e-30)
  share = jnp.minimum(count / jnp.maximum(merge.active, 1.0), 1.0)
  return jnp.where(merge.trainers >= 2, jnp.clip(best, share, 1.0), 1.0)


def relief(task: Task, setting: Setting) -> Algorithm:
  """RELIEF with all options of relief.md section 3.

  Args:
    task: the model.
    setting: the round; `options` holds `rule` (one of RULES), `norm`,
      `max_stale`, `shrinkage`, `denominator`, `confidence` with `beta` and
      `start` (updates count by how well their sensor measures, **ours**:
      parts/sensor_confidence.py) and `clients` (N).

  Raises:
    InputError: an unknown rule, the knapsack over more than 12 groups, or a
      robust mean over a whole cohort.
  """
  options = setting.options
  rule, norm = options['rule'], options['norm']
  if rule not in RULES:
    raise unknown('selection rule', rule, RULES)
  if options['denominator'] == 'cohort' and setting.guard.robust:
    raise InputError(
      f'config.relief.denominator=cohort with config.mean={setting.guard.mean}',
      'contributors: who did not train has no vote in such a mean',
      'set --config.relief.denominator=contributors',
    )
  num, clients = len(task.group_names), options['clients']
  trusts = options['confidence']
  pack = BUDGETS['knapsack' if rule == 'knapsack' else 'greedy']
  shared = jnp.asarray([m < 0 for m in task.group_modality])
  size = task.work.size

  def memory():
    return Memory(
      divergence=jnp.full(num, jnp.inf, jnp.float32),
      magnitude=jnp.full(num, jnp.inf, jnp.float32),
      last=jnp.full((clients, num), -1, jnp.int32),
      quality=sensor_confidence.init(task, clients) if trusts else (),
    )

  def score(memory, context, last) -> Array:
    """[K, G], higher is trained first."""
    shape = last.shape
    waited = (context.round - last).astype(jnp.float32)
    if rule in ('greedy', 'greedy_ratio', 'knapsack'):
      return jnp.broadcast_to(memory.divergence, shape)
    if rule == 'aged':
      return memory.divergence[None] * waited
    if rule == 'magnitude':
      return jnp.broadcast_to(memory.magnitude, shape)
    if rule == 'random':
      keys = batches.client_keys(context.key, context.fleet)
      return jax.vmap(lambda k: jax.random.uniform(k, (num,)))(keys)
    turn = jnp.zeros(shape[:1], jnp.int32)
    if rule == 'round_robin':
      turn = context.round + context.fleet.id
    order = jnp.mod(jnp.arange(num)[None] - turn[:, None], num)
    return -order.astype(jnp.float32)

  def choose(run, access, budget, score, last, overdue):
    """One client's groups, [G] bool."""

    def step_cost(chosen):
      return costs.step_flops(task.work, run, chosen | shared)

    if rule == 'greedy_ratio':
      alone = jax.vmap(step_cost)(jnp.eye(num, dtype=bool))
      score = score / jnp.maximum(alone - step_cost(jnp.zeros(num, bool)), 1.0)
    if options['max_stale']:
      score = jnp.where(overdue, jnp.inf, score)
    tie = last.astype(jnp.float32)
    chosen = pack(score, tie, step_cost, access & ~shared, budget)
    fits = step_cost(jnp.zeros(num, bool)) <= budget * (1 + 1e-5)
    return (chosen | shared) & fits

  def plan(memory: Memory, context: Context) -> Plan:
    last = memory.last[context.place]
    run = context.fleet.owned & context.active[:, None]
    # A device on its first turn has waited for ever only if never chosen.
    overdue = context.round - last > options['max_stale']
    trained = jax.vmap(choose)(
      run,
      context.access,
      context.budget,
      score(memory, context, last),
      last,
      overdue,
    )
    trained &= context.active[:, None]
    counted = trained
    if options['denominator'] == 'cohort':
      # Who sits the round out takes no part and does not dilute it either.
      counted = context.access & trained.any(-1, keepdims=True)
    run &= trained.any(-1, keepdims=True)
    whole = Plan(run, trained, counted.astype(jnp.float32))
    if not trusts:
      return whole
    trust = sensor_confidence.confidence(
      memory.quality, context, run, options['beta'], options['start']
    )
    return whole._replace(
      counted=whole.counted * sensor_confidence.weights(task, trust),
      piece=trust,
      charge=sensor_confidence.charge(task, context.fleet, run),
    )

  def measure(weight, delta):
    if norm != 'cosine':
      return ()
    sq = tree.group_sq_norms(task.groups, delta, num)
    inverse = jnp.where(sq > 0, weight * jax.lax.rsqrt(sq), 0.0)
    return tree.scale(tree.spread(task.groups, inverse), delta)

  def remember(memory: Memory, merge: Merge, plan: Plan, context: Context):
    if norm == 'cosine':
      unit = tree.group_sq_norms(task.groups, merge.extra, num)
      merge = merge._replace(extra=unit)
    ema = setting.hparams['ema']
    last = jnp.where(plan.trained, context.round, memory.last[context.place])
    return Memory(
      divergence=blend(
        memory.divergence, observed(norm, merge, size), ema, merge.trainers >= 2
      ),
      magnitude=blend(
        memory.magnitude, merge.mean_sq / size, ema, merge.trainers >= 1
      ),
      last=memory.last.at[context.place].set(last),
      quality=sensor_confidence.remember(
        memory.quality, merge, context, plan.trained.any(-1), ema
      )
      if trusts
      else (),
    )

  def adjust(merge: Merge):
    kept = shrink(merge)
    return tree.scale(tree.spread(task.groups, kept), merge.mean)

  recipe = Recipe(
    plan=plan,
    measure=measure,
    remember=remember,
    memory=memory,
    report=lambda memory: memory.divergence,
  )
  if trusts:
    recipe = recipe._replace(
      send=lambda memory: memory.quality.prototypes,
      tell=lambda params, learner: sensor_confidence.tell(
        task, params, learner, learner.client.piece
      ),
    )
  if options['shrinkage']:
    recipe = recipe._replace(adjust=adjust)
  return parallel.federated(task, setting, recipe)
