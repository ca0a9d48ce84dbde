"""HO-SFL (https://arxiv.org/abs/2603.14773): devices without a backward pass.

One device part theta for all, which the server trains no gradient of. In a step

    z_n = f(x_n; theta)                      device, forward only
    phi <- opt(phi, sum_n p_n dL_n/dphi)     server, by back-propagation
    lambda_n = dL_n/dz_n                     server to device
    v[n,q] = <lambda_n, f(x_n; theta + mu u_q) - z_n> / mu      device, Q probes
    vbar[q] = sum_n p_n v[n,q]               to everybody, with seeds of u_q
    g = 1/Q sum_q vbar[q] u_q,   theta <- opt(theta, g)         everybody, alike

with u_q normal numbers from a seed that all share. So Q numbers go up beside
activations and labels, no weights ever travel, and who was away replays what it
missed (`replay`). Of d numbers g has the right mean, a cosine of about
sqrt(Q / (Q + d + 1)) to the gradient, and (d + Q + 1) / Q of its squared norm;
all devices share u, so that more of them do not help. Its stable rate is that
much lower, and by default g is scaled down by Q / (Q + d + 1) (**ours**): the
device's part must be small, or come trained.

`probe=jvp` is the limit of mu to 0, the exact directional derivative, of which
float32 rounds nothing off; it is computed here as <dL/dtheta, u>, the same
number, and charged as the probe it stands for. `probe=none` leaves the device's
part as it is, and nothing comes down: what probes have to beat.

Grade: secondary (a reading note with all equations, a port of the authors'
runner, whose loss and gradients are both divided by the number of devices: not
copied). Momentum of both parts starts afresh in every round. Orderings can be
compared, no numbers.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import tree
from relief_jax.algorithms import psl
from relief_jax.algorithms.parts import split_bill
from relief_jax.budgets import cuts
from relief_jax.engine import ambient
from relief_jax.errors import InputError
from relief_jax.keys import name, option, real, switch, whole
from relief_jax.rounds import activation_codes, crossing, split_steps
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round
from relief_jax.settings import HParams, Setting
from relief_jax.task import Task
from relief_jax.types import Array, PyTree

# Purpose of a round's key, out of reach of devices' ids.
_PROBES = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Options(split_bill.OneSplit, activation_codes.Options):
  """Holds the options of HO-SFL."""

  probes: int = option(whole(5, 1, 1000, 'Q, directions of a step'))
  mu: float = option(real(1e-3, 1e-6, 1.0, 'length of a probe'))
  probe: str = option(
    name(
      'finite',
      ('finite', 'jvp', 'none'),
      "a difference, its exact limit, or no probe: the device's part stays as "
      'it is, which probes must beat',
    )
  )
  scale: bool = option(
    switch(True, "the device part's rate is scaled by Q / (Q + d + 1)")
  )


class Heard(NamedTuple):
  """Holds what everybody heard in a round, enough to replay it.

  Attributes:
    key: [words] of the round's seeds.
    scalars: [T, Q], vbar.
    moved: [G] bool, blocks that somebody trains.
  """

  key: Array
  scalars: Array
  moved: Array


class Part(NamedTuple):
  """Describes the device part; static.

  Attributes:
    task: the model.
    held: [G] bool, its blocks.
    scale: of its gradient.
    probes: Q.
  """

  task: Task
  held: np.ndarray
  scale: float
  probes: int


@Facts(options=Options, splits=True)
def ho_sfl(task: Task, setting: Setting) -> Method:
  """Builds HO-SFL.

  Args:
    task: the model, with split points.
    setting: the round, with `Options`.

  Raises:
    InputError: as `split_bill.bill`; all of the model on one side; epochs; a
      codec of gradients that nobody sends.
  """
  if setting.epochs:
    raise InputError(
      'config.local_epochs for ho_sfl',
      'local_steps: what everybody hears in a round has one length',
      'set --config.local_epochs=0',
    )
  options = setting.options
  probes = options.probes
  stays = options.probe == 'none'
  ledger = cuts.Ledger(weights=False, scalar_up=probes, scalar_down=2 * probes)
  if stays:
    if options.gradient_codec != 'none':
      raise InputError(
        f'config.ho_sfl.gradient_codec={options.gradient_codec} with '
        'probe=none, of which no gradient comes down',
        'a codec of activations alone',
        'leave it out, or set --config.ho_sfl.probe=finite',
      )
    ledger = cuts.Ledger(weights=False, grad_down=0, trains=False)
  found = split_bill.bill(
    task, setting, 'ho_sfl', ledger, 0 if stays else probes
  )
  at = crossing.inside(found.points, found.among[0], 'ho_sfl')
  held = np.array(found.points.held[at.at])
  size = float(np.asarray(task.work.size) @ held)
  scale = probes / (probes + size + 1) if options.scale else 1.0
  part = Part(task, held, scale, probes)
  # Nothing is of one device alone: all of the model is the server's to move.
  every = found._replace(device=np.zeros_like(held), server=np.ones_like(held))
  method = psl.together(
    task, setting, every, partial(step, options, at, part, found.codes)
  )

  def plan(server, round: Round):
    planned = method.plan(server, round)
    trained = planned.trained & ~(held[None] & stays)
    return planned._replace(trained=trained, held=jnp.zeros_like(trained))

  def server(state, mean, round: Round):
    state, mine = method.server(state, mean, round)
    active = round.plan.trained.any(-1)
    heard = Heard(
      key=jax.random.key_data(round.key),
      scalars=mean.rows[active.argmax()],
      moved=round.plan.trained.any(0),
    )
    return state._replace(method_state=heard), mine

  def init(params):
    del params
    return Heard(
      key=jnp.zeros_like(jax.random.key_data(ambient.key(0))),
      scalars=jnp.zeros((setting.steps, probes)),
      moved=jnp.zeros(task.num_blocks, bool),
    )

  return method._replace(plan=plan, server=server, init=init)


def direction(part: Part, params: PyTree, key: Array, number: Array) -> PyTree:
  """Draws a direction u, of the device part.

  Args:
    part: the device part.
    params: of it, for its shapes.
    key: of the step.
    number: [] int32, of the probe.
  """
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.fold_in(key, number), len(leaves))
  drawn = [
    jax.random.normal(k, v.shape, v.dtype)
    for k, v in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(structure, drawn)


def step_key(key: Array, number: Array | int) -> Array:
  """Gives the key that all share in a local step of a round."""
  return jax.random.fold_in(jax.random.fold_in(key, _PROBES), number)


def estimate(part: Part, params: PyTree, key: Array, scalars: Array) -> PyTree:
  """Computes 1/Q sum_q vbar[q] u_q of the device part.

  Args:
    part: the device part.
    params: of it, for its shapes.
    key: of the step.
    scalars: [Q] vbar.
  """

  def add(total, given):
    number, value = given
    more = direction(part, params, key, number)
    return jax.tree.map(lambda a, u: a + value * u, total, more), None

  zeros = jax.tree.map(jnp.zeros_like, params)
  numbers = jnp.arange(part.probes)
  total, _ = jax.lax.scan(add, zeros, (numbers, scalars))
  return jax.tree.map(lambda v: v / part.probes, total)


def move(
  part: Part,
  tx,
  side: split_steps.Side,
  key: Array,
  scalars: Array,
  moved: Array,
) -> split_steps.Side:
  """Moves the device part as everybody does, live or in a replay.

  Args:
    part: the device part.
    tx: the optimiser.
    side: the part before.
    key: of the step.
    scalars: [Q] vbar.
    moved: [G] blocks that somebody trains.
  """
  grads = estimate(part, side.params, key, scalars)
  grads = jax.tree.map(lambda g: part.scale * g, grads)
  return split_steps.moved_side(part.task, tx, side, grads, moved)


def replay(
  task: Task,
  setting: Setting,
  hparams: HParams,
  params: PyTree,
  heard: Heard,
  round_index: Array | int = 0,
) -> PyTree:
  """Replays a round on the device part from what everybody heard.

  Args:
    task: the model.
    setting: the round, with `Options`.
    hparams: traced hyperparameters.
    params: P before the round.
    heard: in it.
    round_index: of it.

  Returns:
    Its part of P after the round; None elsewhere.
  """
  options, points = setting.options, cuts.required(task, 'ho_sfl')
  at = cuts.place(points, options.layers, 'ho_sfl')
  held = np.array(points.held[at])
  size = float(np.asarray(task.work.size) @ held)
  probes = options.probes
  scale = probes / (probes + size + 1) if options.scale else 1.0
  part = Part(task, held, scale, probes)
  tx = setting.client_tx(hparams, round_index)
  mine = tree.part(split_steps.parts(task, held), params)
  key = ambient.of_words(heard.key)

  def one(side, given):
    number, scalars = given
    own = step_key(key, number)
    return move(part, tx, side, own, scalars, heard.moved), None

  numbers = jnp.arange(len(heard.scalars))
  side, _ = jax.lax.scan(
    one, split_steps.Side(mine, tx.init(mine)), (numbers, heard.scalars)
  )
  return side.params


def step(
  options, at: crossing.Crossing, part: Part, codes, place, server, sides, *rest
):
  """Takes one step of all devices and of the server; see `Lockstep.step`.

  Args:
    options: of the method.
    at: the split.
    part: the device part.
    codes: of what crosses, or None.
    place: of the round.
    server: its side.
    sides: the devices', of nothing.
    *rest: rows, one step of each, and what maps and sums over all of them.
  """
  rows, steps, each = rest
  key = step_key(place.known.plan_key, place.step)
  here = split_steps.parts(place.task, part.held)
  theta = tree.part(here, server.params)

  def sent(row, step, z, way):
    return codes.arrived(place, row, step, at.at, z, way) if codes else z

  def client(known, row):
    del known
    row, step = row

    def work(params):
      front = crossing.front(place, at, row, step)
      z = front(params)
      value, (grads, cut) = jax.value_and_grad(
        crossing.back(place, at, step), (0, 1)
      )(params, sent(row, step, z, activation_codes.UP))
      cut = sent(row, step, cut, activation_codes.DOWN)
      share = tree.divide(row.weight, place.total)
      behind = row.trained & ~jnp.asarray(part.held)
      up = tree.scale(place.spread(jnp.where(behind, share, 0.0)), grads)

      def with_theta(mine):
        return front(tree.join(here, mine, params))

      told = jnp.zeros(part.probes)
      if options.probe != 'none':
        told = probed(options, part, with_theta, theta, z, cut, key)
      return (up, row.trained.astype(jnp.int32), share.max() * told), value

    return crossing.when(place, row, step, work, None, server.params)

  (up, moved, scalars), losses = each(client, place.known, (rows, steps))
  behind = split_steps.server_step(place, server, up, moved * ~part.held)
  front = split_steps.Side(theta, tree.part(here, server.opt_state))
  if options.probe != 'none':
    front = move(part, place.tx, front, key, scalars, moved)
  joined = split_steps.Side(
    *(tree.join(here, a, b) for a, b in zip(front, behind, strict=True))
  )
  told = jnp.broadcast_to(scalars, (len(losses), *scalars.shape))
  return joined, sides, losses, told


def probed(options, part: Part, front, theta, z, cut, key) -> Array:
  """Evaluates all probes of one device, v [Q].

  Args:
    options: kind and length of a probe.
    part: the device part.
    front: device part -> z.
    theta: device part.
    z: at theta.
    cut: gradients of the loss at z.
    key: of the step.
  """

  def inner(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(jnp.sum(x * y) for x, y in pairs)

  slopes = None
  if options.probe == 'jvp':
    slopes = jax.vjp(front, theta)[1](cut)[0]

  def one(_, number):
    u = direction(part, theta, key, number)
    if slopes is not None:
      return None, inner(slopes, u)
    moved = front(jax.tree.map(lambda v, d: v + options.mu * d, theta, u))
    change = jax.tree.map(jnp.subtract, moved, z)
    return None, inner(cut, change) / options.mu

  return jax.lax.scan(one, None, jnp.arange(part.probes))[1]
