"""Plans where devices split a model, and what that costs, for all methods."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.algorithms import fedavg
from relief_jax.budgets import cuts, server_order
from relief_jax.clients import batches
from relief_jax.errors import InputError
from relief_jax.keys import name, option, real, whole
from relief_jax.rounds import activation_codes, frame
from relief_jax.rounds.method import Round
from relief_jax.settings import ANY, Setting
from relief_jax.task import CostOverride, Plan, SplitPoints, Task, Work
from relief_jax.types import Array, Fleet

# Activations and labels up, gradients down, weights once a round.
_LEDGER = cuts.Ledger()
# Purpose of a device's key: the draw of its split.
_POINT = 3


@dataclasses.dataclass(frozen=True)
class OneSplit:
  """Holds the options of a method whose devices all split at one place."""

  layers: int = option(
    whole(
      -2,
      -3,
      1000,
      'on every device, with rule=fixed; -1: the whole model, -2: all in front '
      'of the last point, -3: of the one before',
    )
  )
  server_order: str = option(
    name(
      'barrier',
      tuple(server_order.ORDERS),
      'the server waits for all, or takes each',
    )
  )
  server_gflops: float = option(
    real(1000.0, 0.001, 1e9, 'speed of the server', unit='GFLOP/s')
  )
  server_watts: float = option(
    real(100.0, 0.0, 1e9, 'power of the server while it computes', unit='W')
  )


@dataclasses.dataclass(frozen=True)
class Options(OneSplit):
  """Holds the options of a method whose devices split where they like."""

  rule: str = option(name('fixed', cuts.RULES, 'where a device splits'))


class Bill(NamedTuple):
  """Holds the plan of a method of split training and its price.

  Attributes:
    points: of the model.
    among: places of those that may be taken; `Plan.client_args` is the place
      that a device takes.
    split: of the server.
    work: [S] of every field, of the device's part at each point.
    device: [G] bool, static, blocks that some device may hold.
    server: [G] bool, static, blocks that the server may train.
    prices: (Round, Plan of everybody, batch=None) -> cuts.Prices.
    choose: (Round, Prices) -> [K] points, [K] they fit.
    codes: of what crosses, or None.
    plan: (Round, Plan of everybody, Prices, points, fit, batch=None, more=0)
      -> Plan; with `more` [K] steps beside the local ones, which only measure.
    check: of `Method`.
  """

  points: SplitPoints
  among: tuple[int, ...]
  split: cuts.Split
  work: Work
  device: np.ndarray
  server: np.ndarray
  prices: Callable[..., cuts.Prices]
  choose: Callable[..., tuple[Array, Array]]
  plan: Callable[..., Plan]
  check: Callable[[Fleet, float], None]
  codes: activation_codes.Codes | None = None

  def everybody(self, setting: Setting, round: Round) -> Plan:
    """Plans a round in which all that fit train all in reach."""
    whole = fedavg.everybody(setting, round)
    found = self.prices(round, whole)
    return self.plan(round, whole, found, *self.choose(round, found))


def _with_middle(
  points: SplitPoints, allowed: tuple[int, ...], method: str, rule: str
) -> tuple[int, ...]:
  """Leaves out the point at which a device with the end has all of the model.

  Raises:
    InputError: it was asked for, or there is no other one.
  """
  last = len(points.layers) - 2
  few = tuple(s for s in allowed if s != last)
  if few and (rule != 'fixed' or len(few) == len(allowed)):
    return few
  raise InputError(
    f'a split behind {points.layers[last]} layers for {method}, whose devices '
    'have the end of the model, too',
    'fewer layers, so that something is left for the server',
    f'set --config.{method}.layers=-3; with --config.model.groups=layer every '
    'layer is a block',
  )


def point_keys(round: Round) -> Array:
  """Gives the keys of the devices' draws of a split, [K]."""
  keys = batches.client_keys(round.key, round.fleet)
  return jax.vmap(jax.random.fold_in, (0, None))(keys, _POINT)


def bill(
  task: Task,
  setting: Setting,
  method: str,
  ledger: cuts.Ledger = _LEDGER,
  probes: int = 0,
  among: Callable[[SplitPoints], tuple[int, ...]] | None = None,
) -> Bill:
  """Makes the plan and the price of a method.

  Args:
    task: the model, with split points.
    setting: the round, with `Options`.
    method: its name, for messages.
    ledger: what crosses.
    probes: as in `cuts.Split`.
    among: split points -> places of those that any rule but `fixed` may take;
      None: all.

  Raises:
    InputError: a model without split points, or without the one asked for; a
      server that does not wait; as `activation_codes.of`.
  """
  if setting.late:
    raise InputError(
      f'config.online.pace.wait for {method}',
      '0: in every step all devices wait for the server',
      'set --config.online.pace.wait=0',
    )
  options, points = setting.options, cuts.required(task, method)
  step = setting.memory_step
  held = np.array(points.held)
  if ledger.act_down:  # what is behind the last point is on the device, too
    held |= ~held[-2]
  count = len(points.layers)
  allowed = tuple(range(count)) if among is None else among(points)
  # Of a method with one place for all there is no other rule.
  rule = getattr(options, 'rule', 'fixed')
  if rule == 'fixed':
    allowed = (cuts.place(points, options.layers, method),)
  if ledger.act_down:
    allowed = _with_middle(points, allowed, method, rule)
  codes = activation_codes.of(task, options, points, allowed, method)
  split = cuts.Split(
    step.batch,
    step.slots,
    options.server_gflops * 1e9,
    ledger,
    probes,
    codes and codes.sent(points),
  )
  work = cuts.device_work(points, split)
  possible = held[list(allowed)]
  order = server_order.ORDERS[options.server_order]

  def prices(round: Round, whole: Plan, batch=None) -> cuts.Prices:
    return cuts.prices(
      task, points, split, round.fleet, whole.run, whole.trained, batch
    )

  def choose(round: Round, found: cuts.Prices) -> tuple[Array, Array]:
    few = jax.tree.map(lambda v: v[:, np.array(allowed)], found)
    at, fits = cuts.choose(
      'deepest' if rule == 'fixed' else rule,  # the only one
      options.layers,
      points,
      few,
      round.fleet.memory,
      point_keys(round),
      method,
    )
    return jnp.asarray(allowed)[at], fits

  def plan(round, whole, found, at, fits, batch=None, more=0.0) -> Plan:
    own, inside = cuts.at(found, at), fits[:, None]
    steps = setting.local_steps(round.fleet).astype(jnp.float32) + more
    busy = own.ahead + own.behind + own.middle
    # Who holds the whole model meets the server at the end of a round only.
    parted = round.active & fits & (at < count - 1)
    # Devices of fewer steps are idle in the last ones.
    together = jnp.where(parted, steps, 0.0).max() * order(own, parted)
    # What a device is sent of the model is what it trains and sends.
    on_device = jnp.asarray(held)[at]
    mine = on_device & whole.trained & inside & ledger.weights
    served = jnp.where(parted, steps * own.server, 0.0).sum()
    return whole._replace(
      run=whole.run & inside,
      trained=whole.trained & inside,
      counted=jnp.where(inside, whole.counted, 0.0),
      held=on_device,
      batch=batch,
      client_args=at,
      cost=CostOverride(
        work=jax.tree.map(lambda v: v[at], work),
        received=mine,
        sent=mine,
        upload=steps * own.up,
        download=steps * own.down,
        flops=steps * own.flops,
        waiting=jnp.where(
          parted, jnp.maximum(together - steps * busy, 0.0), 0.0
        ),
        memory=own.memory,
        samples=None if batch is None else steps * batch,
        server_joules=options.server_watts * served,
        steps=jnp.stack(
          [
            jnp.where(parted, v, 0.0)
            for v in (
              own.ahead,
              own.server,
              own.middle,
              own.behind,
              steps,
              steps * own.up,
              steps * own.down,
            )
          ],
          -1,
        ),
      ),
    )

  def check(fleet: Fleet, deadline: float) -> None:
    del deadline
    first: Any = frame.last(task, setting, ANY, fleet, jnp.int32(0))
    whole = fedavg.everybody(setting, first)
    found = prices(first, whole)
    _, fits = choose(first, found)
    cuts.check(points, found, fleet, np.asarray(fits), setting.sit_out)

  return Bill(
    points=points,
    among=allowed,
    split=split,
    work=work,
    device=np.any(possible, 0),
    server=~np.all(possible, 0),
    prices=prices,
    choose=choose,
    plan=plan,
    check=check,
    codes=codes,
  )
