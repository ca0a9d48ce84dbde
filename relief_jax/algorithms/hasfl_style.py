"""A planner in the manner of HASFL (https://arxiv.org/abs/2506.08426).

Chooses batch size and split point of every device in every round, for the
least time to a target in its bound of convergence: small batches are quick and
noisy, deep splits are slow on slow devices, and blocks that are on *any*
device drift apart between two averages (budgets/batch_and_cut.py). The
training is AdaptSFL's (https://arxiv.org/abs/2403.13101): blocks behind the
deepest split are one model that moves on all devices' batches in every step;
those in front are copies, one for each device whether it holds them or the
server does, and are averaged at the end of a round.

What the bound needs is measured: the variance of a gradient from its two
halves, `b1 b2 / (b1 + b2) |g1 - g2|^2`, the mean over devices and steps, and
the largest device's squared norm; both as moving averages over rounds (.9).
The first round has no measure and takes the deepest split that fits with
batches of 8. Batches are the first samples of `config.batch`, which is the
largest, and are masked. Devices count in means as `config.weight` says, uniform
by default, and not by batch.

Baselines: `rule` and `batches` may be `fixed` or `random` on their own.

Grade: reconstruction (abstracts); objective from them, **ours** are the search,
the estimates, smoothness as a constant, and the target where it is not given.
No number of the paper can be expected of it.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import split_bill
from relief_jax.algorithms.psl import together
from relief_jax.budgets import batch_and_cut, cuts, server_order
from relief_jax.clients import batches
from relief_jax.errors import InputError
from relief_jax.keys import name, option, real
from relief_jax.rounds import activation_codes, frame, split_steps
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round
from relief_jax.settings import ANY, Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, Fleet

LARGEST, FIRST = 64, 8
# Of the moving averages.
_KEEP = 0.9
# Purpose of a device's key: the draw of a batch.
_BATCH = 2
KINDS = 'adaptive', 'fixed', 'random'


@dataclasses.dataclass(frozen=True)
class Options(split_bill.Options, activation_codes.Options):
  """Holds the options of the planner."""

  rule: str = option(name('adaptive', KINDS, 'where a device splits'))
  batches: str = option(
    name('adaptive', KINDS, 'batch of a device; fixed: config.batch')
  )
  smoothness: float = option(real(1.0, 0.0, 1e9, 'beta of the bound'))
  target: float = option(
    real(
      0.0,
      0.0,
      1e9,
      "eps of the bound; 0: twice the first plan's variance and drift",
    )
  )


class Seen(NamedTuple):
  """Holds the estimates of the server.

  Attributes:
    sigma2: [G] variance of a sample's gradient.
    squares: [G] squared norm.
    loss: [] of the last round.
    rounds: [] int32, measured so far.
  """

  sigma2: Array
  squares: Array
  loss: Array
  rounds: Array


@Facts(options=Options, splits=True)
def hasfl_style(task: Task, setting: Setting) -> Method:
  """Builds the planner and its training.

  Args:
    task: the model, with split points.
    setting: the round, with `Options`.

  Raises:
    InputError: as `split_bill.bill`; epochs, in which a smaller batch would be
      fewer samples.
  """
  if setting.epochs:
    raise InputError(
      'config.local_epochs for hasfl_style',
      'local_steps: it chooses how many samples a step has',
      'set --config.local_epochs=0',
    )
  options = setting.options
  found = split_bill.bill(task, setting, 'hasfl_style', among=between)
  grid = [2**i for i in range(7) if 2**i <= min(setting.batch, LARGEST)]
  points = np.array(found.among)
  order = server_order.ORDERS[options.server_order]
  size = task.work.size

  def priced(round: Round, whole: Plan, batch: float) -> cuts.Prices:
    each = jnp.full(round.fleet.id.shape, batch)
    every = found.prices(round, whole, each)
    return jax.tree.map(lambda v: v[:, points], every)

  def problem(seen: Seen, round: Round, whole: Plan):
    one, two = (priced(round, whole, float(b)) for b in (1, 2))
    fleet = round.fleet
    held = jnp.array(found.points.held)[points]
    part = 4 * jnp.einsum(
      'kg,sg,g->ks',
      whole.trained.astype(jnp.float32),
      held.astype(jnp.float32),
      size,
      precision='highest',
    )
    real = fleet.samples > 0
    up, down = (
      8 / jnp.where(real, link, 1.0) for link in (fleet.uplink, fleet.downlink)
    )
    return batch_and_cut.Problem(
      grid=jnp.array(grid),
      one=one,
      more=jax.tree.map(jnp.subtract, two, one),
      merge=part * (up + down)[:, None],
      memory=fleet.memory,
      active=round.active,
      held=held,
      order=order,
      bound=batch_and_cut.Bound(
        sigma2=seen.sigma2,
        squares=seen.squares,
        gap=seen.loss,
        beta=options.smoothness,
        rate=setting.client_rate(round.hparams, round.round_index),
        every=setting.steps,
        target=options.target,
      ),
    )

  def plan(server, round: Round) -> Plan:
    whole, seen = fedavg.everybody(setting, round), server.method_state
    given = problem(seen, round, whole)
    first = batch_and_cut.start(given, FIRST)
    best = batch_and_cut.solve(given, FIRST)[:2]
    batch, at = jax.tree.map(
      lambda a, b: jnp.where(seen.rounds > 0, a, b), best, first
    )

    def draw(keys, count):
      return jax.vmap(lambda k: jax.random.randint(k, (), 0, count))(keys)

    if options.rule == 'random':
      at = draw(split_bill.point_keys(round), len(points))
    elif options.rule == 'fixed':
      at = jnp.zeros_like(at)  # the only one
    if options.batches == 'random':
      keys = batches.client_keys(round.key, round.fleet)
      keys = jax.vmap(jax.random.fold_in, (0, None))(keys, _BATCH)
      batch = jnp.array(grid)[draw(keys, len(grid))]
    elif options.batches == 'fixed':
      batch = jnp.full_like(batch, setting.batch)
    own = batch_and_cut.priced(given, batch, at)
    fits = batch_and_cut.fitting(given, own)
    at = jnp.asarray(points)[at]
    prices = found.prices(round, whole, batch)
    planned = found.plan(round, whole, prices, at, fits, batch)
    zone = jnp.where(round.active & fits, at, 0).max()
    held = jnp.array(found.points.held)[zone]
    return planned._replace(
      held=jnp.broadcast_to(held[None], whole.trained.shape)
    )

  step = partial(split_steps.pooled, gradient=halves(task))
  method = together(task, setting, found, step)

  def server(state, mean, round: Round):
    seen = state.method_state
    told, real = mean.rows, round.plan.trained.any(-1)
    each = jnp.where(real[:, None], told.sigma2.mean(1), 0.0)
    new = Seen(
      sigma2=each.sum(0) / jnp.maximum(real.sum(), 1),
      squares=jnp.where(real[:, None], told.squares.mean(1), 0.0).max(0),
      loss=jnp.where(real, told.loss.mean(1), 0.0).sum()
      / jnp.maximum(real.sum(), 1),
      rounds=seen.rounds + 1,
    )
    keep = jnp.where(seen.rounds > 0, _KEEP, 0.0)
    mixed = jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, seen, new)
    mixed = mixed._replace(loss=new.loss, rounds=new.rounds)
    state, mine = method.server(state, mean, round)
    return state._replace(method_state=mixed), mine

  def init(params):
    del params
    zero = jnp.zeros(task.num_blocks)
    return Seen(zero, zero, jnp.float32(0.0), jnp.int32(0))

  def check(fleet: Fleet, deadline: float) -> None:
    del deadline
    first = frame.last(task, setting, ANY, fleet, jnp.int32(0))
    whole = fedavg.everybody(setting, first)
    least = setting.batch if options.batches == 'fixed' else 1
    prices = priced(first, whole, float(least))
    fits = np.ones(len(np.asarray(fleet.id)), bool)
    if fleet.memory is not None:
      fits = np.asarray((prices.memory <= fleet.memory[:, None]).any(-1))
    cuts.check(found.points, prices, fleet, fits, setting.sit_out)

  return method._replace(plan=plan, server=server, init=init, check=check)


def between(points) -> tuple[int, ...]:
  """Leaves out that inputs go up and that everything is on the device."""
  return tuple(range(1, len(points.layers) - 1))


class Told(NamedTuple):
  """Holds what a device measures in a step; see `Seen`."""

  sigma2: Array
  squares: Array
  loss: Array


def halves(task: Task):
  """Builds a gradient from two halves of a batch, `split_steps.local_step`."""
  num = task.num_blocks

  def gradient(loss, params, step):
    odd = jnp.cumsum(step.weight > 0) % 2
    weights = jnp.stack([step.weight * odd, step.weight * (1 - odd)])
    # One after another: a program then holds the model once.
    values, slopes = jax.lax.map(
      lambda w: jax.value_and_grad(loss)(params, step._replace(weight=w)),
      weights,
    )
    first, second = weights.sum(-1)
    share = first / jnp.maximum(first + second, 1e-9)
    value, grads = jax.tree.map(
      lambda v: share * v[0] + (1 - share) * v[1], (values, slopes)
    )
    gap = jax.tree.map(lambda v: v[0] - v[1], slopes)
    factor = jnp.where(second > 0, share * second, 0.0)
    told = Told(
      factor * tree.group_sq_norms(task.groups, gap, num),
      tree.group_sq_norms(task.groups, grads, num),
      value,
    )
    return value, grads, told

  return gradient
