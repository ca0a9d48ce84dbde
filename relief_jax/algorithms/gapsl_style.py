"""Aligned gradients in the manner of GAPSL (https://arxiv.org/abs/2603.18540).

Parallel split learning without averages of the devices' parts (psl.py), in
which the server bends what it sends down towards a common direction. Samples
of two devices have nothing to do with each other, their classes have: with
g[n,k] the mean of device n's gradients at the split over samples of class k,

    score_n = mean cosine of g[n,k] to those of the others
    leaders: score_n >= quantile(score, 1 - rho)
    l = mean of the leaders' g[n,k], of norm 1;   c = cosine of g[n,k] and l
    g'[n,k] = g[n,k] + eta |g[n,k]| (l - c g[n,k] / |g[n,k]|)

rescaled to the norm of g[n,k] (option), and every sample of class k gets
g'[n,k] - g[n,k] more. The cosine to the leader becomes
(c + eta (1 - c^2)) / sqrt(1 + eta^2 (1 - c^2)), never less for 0 <= eta <= 2.
A class that fewer than three devices have in a step is left as it is. Nothing
more crosses than in parallel split learning: all of it is done at the server.

Grade: reconstruction (abstract); **ours** are the place of the correction, the
classes, and the scale. All devices split at one place.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.algorithms import psl
from relief_jax.algorithms.parts import split_bill
from relief_jax.clients import training
from relief_jax.errors import InputError
from relief_jax.keys import option, real, switch
from relief_jax.rounds import activation_codes, crossing, split, split_steps
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.scoring import targets
from relief_jax.settings import Setting
from relief_jax.task import Task
from relief_jax.types import Array, PyTree

_TINY = 1e-30


@dataclasses.dataclass(frozen=True)
class Options(split_bill.OneSplit, activation_codes.Options):
  """Holds the options of the alignment."""

  eta: float = option(real(0.3, 0.0, 2.0, 'strength of the correction'))
  rho: float = option(real(0.5, 0.0, 1.0, 'share of devices that lead'))
  rescale: bool = option(switch(True, 'gradients keep their norm'))


@Facts(options=Options, splits=True, classes=True)
def gapsl_style(task: Task, setting: Setting) -> Method:
  """Builds parallel split learning with aligned gradients.

  Args:
    task: the model, with split points.
    setting: the round, with `Options`.

  Raises:
    InputError: as `split_bill.bill`; a model without classes, or with all of
      it on one side.
  """
  if task.targets != targets.CLASSES:
    raise InputError(
      f'a model of {task.targets} for gapsl_style',
      'one of classes: gradients are compared class by class',
      'take another method',
    )
  found = split_bill.bill(task, setting, 'gapsl_style', psl.LEDGER)
  at = crossing.inside(found.points, found.among[0], 'gapsl_style')
  step = partial(aligned, setting.options, at, found.codes)
  return split.apart(task, psl.together(task, setting, found, step))


class Up(NamedTuple):
  """Holds what the server has of a device after its own backward pass.

  Attributes:
    cut: z's gradients.
    mean: [C, D] their means by class, zeros where there is none.
    present: [C] bool.
    classes: [B] int32.
  """

  cut: PyTree
  mean: Array
  present: Array
  classes: Array


def aligned(
  options, at: crossing.Crossing, codes, place, server, sides, rows, *rest
):
  """Takes one step of all devices and of the server; see `Lockstep.step`.

  Args:
    options: of the method.
    at: the split.
    codes: of what crosses, or None.
    place: of the round.
    server: its side.
    sides: the devices'.
    rows: of the devices.
    *rest: one step of each, and what maps and sums over all of them.
  """
  steps, each = rest
  task, known = place.task, place.known

  def seen(row, mine, theirs):
    return place.whole(mine, theirs, row.held)

  def backward(known, row):
    row, side, step = row

    def work(side):
      front = crossing.front(place, at, row, step)
      loss = crossing.back(place, at, step)
      z = front(seen(row, side.params, server.params))
      if codes:
        up = activation_codes.UP
        z = codes.arrived(place, row, step, at.at, z, up)
      value, (grads, cut) = jax.value_and_grad(
        lambda theirs, z: loss(seen(row, side.params, theirs), z), (0, 1)
      )(server.params, z)
      theirs = row.trained & ~row.held
      share = tree.divide(row.weight, place.total)
      up = tree.scale(place.spread(jnp.where(theirs, share, 0.0)), grads)
      y = known.population.bank.y[step.row]
      told = by_class(cut, y, step.weight, task.classes)
      moved = theirs.astype(jnp.int32)
      present = told.present.astype(jnp.float32)
      return (up, moved, unit(told.mean), present), (told, value)

    return crossing.when(place, row, step, work, None, side)

  (up, moved, units, count), (told, losses) = each(
    backward, known, (rows, sides, steps)
  )

  def score(known, row):
    """The mean cosine to the others follows from the sum of directions."""
    del known
    row, told = row
    own = unit(told.mean)
    found = (own * (units - own)).sum(-1) / jnp.maximum(count - 1, 1.0)
    here = row.active & told.present
    mark = jnp.zeros((place.setting.cohort, task.classes)).at[row.number]
    scores = mark.set(jnp.where(here, found, 0.0))
    return (scores, mark.set(here.astype(jnp.float32))), found

  (scores, here), own = each(score, known, (rows, told))
  least = jnp.nanquantile(
    jnp.where(here > 0, scores, jnp.nan), 1 - options.rho, axis=0
  )

  def lead(known, row):
    del known
    row, told, score = row
    leads = row.active & told.present & (score >= least)
    return tree.masked(leads, told.mean), ()

  leader, _ = each(lead, known, (rows, told, own))

  def move(known, row):
    del known
    row, side, step, told = row

    def work(side):
      front = crossing.front(place, at, row, step)
      _, pull = jax.vjp(
        lambda mine: front(seen(row, mine, server.params)), side.params
      )
      new = corrected(told.mean, unit(leader), options)
      change = jnp.where((count >= 3)[:, None], new - told.mean, 0.0)
      cut = add_by_class(told.cut, change, told.classes, step.weight)
      if codes:
        down = activation_codes.DOWN
        cut = codes.arrived(place, row, step, at.at, cut, down)
      mine = place.spread((row.trained & row.held).astype(jnp.float32))
      params, opt_state, _ = training.gated_step(
        place.tx,
        side.params,
        tree.scale(mine, pull(cut)[0]),
        side.opt_state,
        mine,
      )
      return split_steps.Side(params, opt_state)

    return (), crossing.when(place, row, step, work, lambda side: side, side)

  _, sides = each(move, known, (rows, sides, steps, told))
  return split_steps.server_step(place, server, up, moved), sides, losses, ()


def unit(value: Array) -> Array:
  """Scales [..., D] to norm 1; zeros stay."""
  norm = jnp.sqrt(jnp.square(value).sum(-1, keepdims=True))
  return value / jnp.maximum(norm, _TINY)


def corrected(mean: Array, leader: Array, options: Options) -> Array:
  """Bends gradients towards a leader, [C, D].

  Args:
    mean: [C, D].
    leader: [C, D] of norm 1.
    options: strength, and whether the norm is kept.
  """
  norm = jnp.sqrt(jnp.square(mean).sum(-1, keepdims=True))
  own = unit(mean)
  cosine = (own * leader).sum(-1, keepdims=True)
  bent = mean + options.eta * norm * (leader - cosine * own)
  if options.rescale:
    bent = unit(bent) * norm
  return jnp.where(options.eta > 0, bent, mean)


def flat(cut: PyTree, batch: int) -> Array:
  """Lays out what crosses by sample, [B, D]."""
  parts = [v.reshape(batch, -1) for v in jax.tree.leaves(cut)]
  return jnp.concatenate(parts, -1)


def by_class(cut: PyTree, y: Array, weight: Array, classes: int) -> Up:
  """Averages gradients at the split by class.

  Args:
    cut: of every sample.
    y: [B] classes.
    weight: [B], 0 for padding.
    classes: C.
  """
  member = jax.nn.one_hot(y, classes) * (weight > 0)[:, None]
  count = member.sum(0)
  mean = jnp.matmul(member.T, flat(cut, len(y)), precision='highest')
  mean = mean / jnp.maximum(count, 1.0)[:, None]
  return Up(cut, mean, count > 0, y)


def add_by_class(cut: PyTree, change: Array, y: Array, weight: Array) -> PyTree:
  """Adds [C, D] to the gradients of the samples of each class."""
  more = jnp.where((weight > 0)[:, None], change[y], 0.0)
  leaves, structure = jax.tree.flatten(cut)
  ends, found = 0, []
  for v in leaves:
    width = v.size // len(y)
    found.append(v + more[:, ends : ends + width].reshape(v.shape))
    ends += width
  return jax.tree.unflatten(structure, found)
