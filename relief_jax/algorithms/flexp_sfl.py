"""FlexP-SFL (https://arxiv.org/abs/2508.10349): personal ends, shared middle.

Devices are served one after another. Device n has its own front (the first
layers), middle (up to its split c_n) and end (what is behind the last split
point); the server the layers between, one copy for all. Labels stay:

    a = front_n(x),  z = middle_n(a)            device to server: a and z
    z' = stop_gradient(phi[front:c_n](a))       the server's copy of the middle
    out = end_n(phi[c_n:end](z))                server to device and back
    L = loss(out) + lambda KL(softmax(z') || softmax(z))

with the soft-max over the features of a token or time step, and the mean over
those that are there. The front, the middle, the end and phi[c_n:end] move; the
server's copy of the middle only by devices that split before it. The KL is
computed at the server, its gradient added to what comes down: nothing more
crosses. Nothing personal is averaged or sent; every device tests its own model.

Grade: published code (the authors' repository), whose defects are repaired:
there all devices and the server share the same modules, so that nothing is
personal. Departures: the mean over tokens, the end (the head alone), the
project's optimiser. `personal=False` shares everything: SGD on one device's
batch after another. The server's pass for z' is not charged.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.algorithms import psl
from relief_jax.algorithms.parts import split_bill
from relief_jax.budgets import cuts
from relief_jax.errors import InputError
from relief_jax.keys import option, real, switch, whole
from relief_jax.rounds import crossing, split, split_steps
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round
from relief_jax.settings import Setting
from relief_jax.task import Task
from relief_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Options(split_bill.Options):
  """Holds the options of FlexP-SFL."""

  layers: int = option(
    whole(
      -3,
      -3,
      1000,
      'of front and middle on every device, with rule=fixed; -3: all in front '
      'of the point before the last',
    )
  )
  front: int = option(
    whole(1, 1, 1000, 'layers of the front, at most those of a split')
  )
  align: float = option(real(0.25, 0.0, 1e6, 'lambda of the alignment'))
  personal: bool = option(
    switch(True, 'front, middle and end are of each device alone')
  )


@Facts(options=Options, splits=True)
def flexp_sfl(task: Task, setting: Setting) -> Method:
  """Builds FlexP-SFL.

  Args:
    task: the model, with split points.
    setting: the round, with `Options`.

  Raises:
    InputError: as `split_bill.bill`; a split with nothing at the server.
  """
  options = setting.options
  points = cuts.required(task, 'flexp_sfl')
  last = len(points.layers) - 2
  among: tuple[int, ...]
  if options.rule == 'fixed':
    among = (cuts.place(points, options.layers, 'flexp_sfl'),)
  else:
    among = tuple(range(1, last)) or (0,)
  if among[0] > last:
    raise InputError(
      'the whole model on every device for flexp_sfl',
      'a middle for the server',
      'set --config.flexp_sfl.layers=-3',
    )
  # The front ends where the shallowest split is, at the latest.
  wanted = [s for s, n in enumerate(points.layers) if n >= options.front]
  least = min(wanted[0] if wanted else among[0], among[0])
  ledger = cuts.Ledger(
    act_down=1, grad_up=1, labels=False, weights=False, front=least
  )
  found = split_bill.bill(
    task, setting, 'flexp_sfl', ledger, among=lambda points: among
  )
  front = np.array(points.held[least])

  def penalty(place, row, server: PyTree, step):
    inputs = crossing.inputs(place, row, step)
    frozen = place.known.population.frozen

    def value(params):
      copy = jax.tree.map(
        lambda g, mine, theirs: (
          mine if front[g] or not place.lockstep.server[g] else theirs
        ),
        task.groups,
        params,
        server,
      )

      def at(s):
        z, own = (
          crossing.tokens(
            points.front(s, p, frozen, inputs, step.run, place.branch), step
          )
          for p in (params, copy)
        )
        return divergence(own, z)

      each = [lambda s=s: at(s) for s in found.among]
      which = jnp.searchsorted(jnp.array(found.among), row.args)
      return options.align * jax.lax.switch(which, each)

    return value

  def step(*given):
    align = penalty if options.align and options.personal else None
    return split_steps.in_turn(*given, penalty=align)

  method = psl.together(task, setting, found, step, in_turn=True)

  def plan(server, round: Round):
    planned = method.plan(server, round)
    if options.personal:
      return planned
    return planned._replace(held=jnp.zeros_like(planned.held))

  if not options.personal:
    nothing = np.zeros(task.num_blocks, bool)
    found = found._replace(device=nothing, server=~nothing)
    shared = psl.together(task, setting, found, step, in_turn=True)
    return shared._replace(plan=plan)
  return split.apart(task, method._replace(plan=plan))


def divergence(target: list, found: list) -> Array:
  """Computes KL(softmax(target) || softmax(found)), the mean over tokens, [].

  Args:
    target: of `crossing.tokens`; has no gradient.
    found: likewise.
  """
  total, count = jnp.float32(0.0), jnp.float32(0.0)
  for (own, there), (z, _) in zip(target, found, strict=True):
    p = jax.nn.log_softmax(jax.lax.stop_gradient(own))
    q = jax.nn.log_softmax(z)
    each = (jnp.exp(p) * (p - q)).sum(-1)
    total += jnp.where(there > 0, each * there, 0.0).sum()
    count += there.sum()
  return total / jnp.maximum(count, 1.0)
