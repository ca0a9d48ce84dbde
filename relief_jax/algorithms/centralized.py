"""All windows in one place: an upper bound, not a federated system (**ours**).

One model sees the training windows of *all* devices with *every* sensor
switched on, also where the fleet lacks it, and takes as many steps a round as
the cohort together (K * T). Momentum is never restarted here, and so many
steps at a constant rate end in a loss spike sooner or later (seen on DSADS):
gradients are clipped to norm 1 and the rate falls to 0 along a cosine. The
cost column is only indicative: the raw windows of the sensors that exist are
sent once, in the first round, and the fleet's fastest device does the
training.
"""

import jax
import jax.numpy as jnp
import optax

from relief_jax import (
  costs,
  guard,
  links,
  local_training,
  patience,
  training,
  tree,
)
from relief_jax.recipe import Setting
from relief_jax.types import Algorithm, RoundInfo, Steps, Task


def centralized(task: Task, setting: Setting) -> Algorithm:
  """Pooled SGD; state is (params, optimiser state, round).

  Raises:
    InputError: a codec or a guard is set: raw windows are sent here, once; or
      a limit to the server's patience.
  """
  links.refuse(setting, 'centralized')
  guard.refuse(setting.guard, 'centralized')
  patience.refuse(setting, 'centralized')
  num, num_modalities = len(task.group_names), len(task.modalities)
  everything = jnp.ones(num, bool)
  mask = tree.spread(task.groups, everything)

  def optimizer(length):
    every = setting.hparams['rounds'] * length

    def falling(count):
      return 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(count / every, 1.0)))

    return optax.chain(
      optax.clip_by_global_norm(1.0),
      setting.client_tx(),
      optax.scale_by_schedule(falling),
    )

  def init(key, params):
    del key
    gated = training.gated_optimizer(
      optimizer(1), tree.spread(task.groups, jnp.ones(num))
    )
    return params, gated.init(params), jnp.int32(0)

  def step(key, state, population):
    params, opt_state, number = state
    row_key, drop_key = jax.random.split(key)
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
    run = jnp.ones((length, num_modalities), bool)
    if setting.dropout:
      run = training.modality_dropout(
        drop_key, run[0], setting.hparams['dropout'], length
      )
    steps = Steps(
      row=population.rows[owner, place],
      weight=jnp.ones(at.shape),
      run=run,
      sensed=None,
    )
    loss = local_training.client_loss(task, population, everything)
    delta, value, opt_state = training.local_update(
      loss, optimizer(length), params, mask, steps, opt_state
    )
    params = jax.tree.map(jnp.add, params, delta)
    flops = costs.step_flops(task.work, run[0], everything)
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
      loss=jnp.full(fleet.id.shape, value),
      trained=jnp.ones((fleet.id.size, num), bool),
      upload=raw,
      download=jnp.zeros_like(raw),
      seconds=sending.at[best].add(seconds),
      joules=jnp.where(raw > 0, sending * fleet.watts[:, 1], 0.0)
      .at[best]
      .add(seconds * fleet.watts[best, 0]),
      divergence=jnp.full(num, jnp.nan),
    )
    return (params, opt_state, number + 1), info

  return Algorithm(init, step, params=lambda state: state[0])
