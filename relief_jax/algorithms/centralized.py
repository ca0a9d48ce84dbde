"""All windows in one place: a bound, not a federated system (**ours**).

One model sees the training windows of *all* devices, with what any of their
persons wore, and takes as many steps a round as the cohort together (K * T).
What it is a bound of depends on the sensors that it is trained with, since a
device is tested with those that it owns:

- `sensors='fleet'` (default): every step has the sensors of a device drawn from
  the fleet, so that what is tested was trained;
- `sensors='complete'`: every sensor is on in every step. That bounds devices
  which own all; one with fewer then meets features that were never absent, and
  is far below what its data allow.

`config.modality_dropout` leaves sensors out of either. The optimiser is never
restarted here, and so many steps at a constant rate end in a loss spike sooner
or later (seen on DSADS): gradients are clipped to norm 1 and the rate falls to
0 along a cosine. The cost column is only indicative: the raw windows of the
sensors that exist are sent once, in the first round, and the fleet's fastest
device does the training.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from relief_jax import blocks, costs, tree
from relief_jax.clients import device as device_lib
from relief_jax.clients import training
from relief_jax.clients.records import Steps
from relief_jax.errors import InputError
from relief_jax.keys import name, option
from relief_jax.rounds import legality
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.records import Algorithm, RoundInfo
from relief_jax.settings import ANY, HParams, Setting
from relief_jax.task import Task
from relief_jax.types import Array, Fleet


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of pooled SGD."""

  sensors: str = option(
    name(
      'fleet', ('fleet', 'complete'), 'on in a step: of a device drawn, or all'
    )
  )


@Facts(options=Options, rounds=False)
def centralized(task: Task, setting: Setting) -> Algorithm:
  """Builds pooled SGD; state is (params, optimiser state, round).

  Args:
    task: the model.
    setting: the round, with `Options`.

  Raises:
    InputError: a codec or a guard is set: raw windows are sent here, once; or
      a limit to the server's waiting, or a schedule of the rate.
  """
  legality.codes(setting, 'centralized', 'sends raw windows, once')
  legality.alone(setting, 'centralized')
  if setting.client_optimizer[3:] != ('constant', False):
    raise InputError(
      "a schedule of the local rate for 'centralized'",
      'none: its rate falls along a cosine, step by step',
      'leave lr_schedule, hparams.lr_decay and hparams.lr_warmup as by default',
    )
  num, num_modalities = task.num_blocks, len(task.modalities)
  everything = jnp.ones(num, bool)
  whole_fleet = setting.options.sensors == 'fleet'
  mask = tree.broadcast_groups(task.groups, everything)

  def optimizer(hparams: HParams, length: int):
    every = hparams['rounds'] * length

    def falling(count):
      return 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(count / every, 1.0)))

    return optax.chain(
      optax.clip_by_global_norm(1.0),
      setting.client_tx(hparams),
      optax.scale_by_schedule(falling),
    )

  def init(key, params):
    del key
    return params, optimizer(ANY, 1).init(params), jnp.int32(0)

  def sensors(key, fleet: Fleet, hparams: HParams, length: int) -> Array:
    """Draws the sensors that are on in each step, [length, M] bool."""
    set_key, drop_key = jax.random.split(key)
    on = jnp.ones((length, num_modalities), bool)
    if whole_fleet:
      real = (fleet.samples > 0).astype(jnp.float32)
      device = jax.random.choice(
        set_key, real.size, (length,), p=real / real.sum()
      )
      on = fleet.owned[device]
    if setting.dropout:
      on = jax.vmap(
        lambda key, own: training.modality_dropout(
          key, own, hparams['dropout'], 1
        )[0]
      )(jax.random.split(drop_key, length), on)
    return on

  def step(key, state, population, hparams: HParams):
    params, opt_state, number = state
    row_key, sensor_key = jax.random.split(key)
    fleet = population.fleet
    if setting.epochs:
      windows = population.bank.y.shape[0]
      length = setting.epochs * -(-windows // setting.batch)
    else:
      length = setting.cohort * setting.steps
    last = jnp.cumsum(fleet.samples)
    at = jax.random.randint(row_key, (length, setting.batch), 0, last[-1])
    owner = jnp.searchsorted(last, at, side='right')
    place = at - (last - fleet.samples)[owner]
    on = sensors(sensor_key, fleet, hparams, length)
    filled = setting.fill == 'input'
    run = on | filled
    steps = Steps(
      row=population.rows[owner, place],
      weight=jnp.ones(at.shape),
      run=run,
      sensed=on if filled else None,
    )
    loss = device_lib.client_loss(task, population, everything)
    done = training.local_update(
      loss, optimizer(hparams, length), params, mask, steps, opt_state
    )
    params = jax.tree.map(jnp.add, params, done.delta)
    moved = blocks.owned_groups(run, task.blocks.modality)
    flops = costs.step_flops(task.work, run, moved).mean()
    speed = jnp.where(fleet.samples > 0, fleet.speed, 0.0)  # no padding
    best = jnp.argmax(speed)
    seconds = length * setting.batch * flops / speed[best]
    # float32 windows of the sensors on board, sent once.
    numbers = jnp.asarray(
      [population.bank.x[m][0].size for m in task.modalities], jnp.float32
    )
    raw = 4.0 * fleet.samples * (fleet.owned * numbers[None]).sum(-1)
    raw = jnp.where(number == 0, raw, 0.0)
    sending = jnp.where(raw > 0, 8 * raw / fleet.uplink, 0.0)
    info = RoundInfo(
      client=fleet.id,
      loss=jnp.full(fleet.id.shape, done.loss),
      trained=jnp.ones((fleet.id.size, num), bool),
      upload=raw,
      download=jnp.zeros_like(raw),
      seconds=sending.at[best].add(seconds),
      joules=jnp.where(raw > 0, sending * fleet.watts[:, 1], 0.0)
      .at[best]
      .add(seconds * fleet.watts[best, 0]),
      divergence=jnp.full(num, jnp.nan),
    )
    return (params, done.opt_state, number + 1), info

  return Algorithm(init, step, params=lambda state: state[0])
