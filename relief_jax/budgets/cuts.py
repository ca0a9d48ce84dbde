"""Chooses where devices split a model, and prices a step of split training.

With c_n layers on device n, per step of a batch of B samples,

    a_n = T_F + T_up      forward pass of the device's part, activations up
    s_n                   forward and backward pass of the server's part
    b_n = T_down + T_B    gradients down, backward pass of the device's part

The server either waits for all activations before it computes (`barrier`), or
serves them as they come, one device at a time (`queue`):

    barrier  max_n a_n + sum_n s_n + max_n b_n
    queue    with a sorted and C_k = s_1 + .. + s_k:
             done_k = C_k + max_{j <= k} (a_j - C_{j-1}),  max_k (done_k + b_k)

The latter's next step begins when all devices have ended this one. Formulas:
first come, first served on one server (textbook); the rest is **ours**.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, costs
from relief_jax.errors import InputError
from relief_jax.task import SplitPoints, Task
from relief_jax.types import Array, Fleet

RULES = ('fixed', 'deepest', 'fastest', 'random')
ORDERS = ('barrier', 'queue')
# Bytes of a sample's class that go up with its activations, int32 as in the
# bank.
_LABEL = 4.0


class Split(NamedTuple):
  """Describes the server of split training, and its steps; static.

  Attributes:
    batch: B.
    slots: numbers that the optimiser keeps per parameter.
    server: FLOP/s of the server, inf for no time at all.
  """

  batch: int
  slots: float
  server: float


class Prices(NamedTuple):
  """Holds what a step costs at every split point; all [K, S] float32.

  Attributes:
    ahead: a_n, seconds.
    server: s_n, seconds.
    behind: b_n, seconds.
    up: bytes.
    down: bytes.
    memory: bytes of the device's training.
  """

  ahead: Array
  server: Array
  behind: Array
  up: Array
  down: Array
  memory: Array


def required(task: Task, method: str) -> SplitPoints:
  """Gives a model's split points.

  Raises:
    InputError: it has none.
  """
  found = task.submodels.get('split')
  if found is None:
    raise InputError(
      f'{method} with a model that declares no split points',
      "encoders of several layers and a head (`submodels['split']`)",
      'set --config.backbone=cnn, or give models.from_flax a chain of stages',
    )
  return found(task)


def prices(
  task: Task,
  points: SplitPoints,
  split: Split,
  fleet: Fleet,
  run: Array,
  train: Array,
) -> Prices:
  """Prices a step of every device at every point.

  Args:
    task: the model.
    points: of it.
    split: of the server.
    fleet: [K] participants.
    run: [K, M] bool, branches in the forward pass.
    train: [K, G] bool, blocks trained, wherever they are.
  """
  whole = split.batch * costs.step_flops(task.work, run, train)
  speed = jnp.where(fleet.samples > 0, fleet.speed, 1.0)
  up_rate = jnp.where(fleet.samples > 0, fleet.uplink, 1.0)
  down_rate = jnp.where(fleet.samples > 0, fleet.downlink, 1.0)
  columns = []
  for s, (work, memory) in enumerate(
    zip(points.work, points.memory, strict=True)
  ):
    held = jnp.asarray(points.held[s])[None]
    mine = train & held
    # Zeros and ones times whole numbers of bytes.
    crossing = split.batch * costs.total(run, jnp.asarray(points.sent[s]))
    last = s == len(points.work) - 1
    up = crossing if last else crossing + split.batch * _LABEL
    down = jnp.where(mine.any(-1) & (not last), crossing, 0.0)
    none = jnp.zeros_like(mine)
    forward = split.batch * costs.step_flops(work, run, none)
    both = split.batch * costs.step_flops(work, run, mine)
    used = jnp.zeros(run.shape[0])
    if memory is not None:
      access = blocks.owned_groups(run, task.blocks.modality)
      used = costs.training_bytes(
        memory, task.work, access & held, mine, split.batch, split.slots
      )
    columns.append(
      Prices(
        ahead=forward / speed + 8 * up / up_rate,
        # What two sums of floats leave of nothing is no work.
        server=jnp.maximum(whole - both, 0.0) * (not last) / split.server,
        behind=(both - forward) / speed + 8 * down / down_rate,
        up=up,
        down=down,
        memory=used,
      )
    )
  return jax.tree.map(lambda *v: jnp.stack(v, -1), *columns)


def choose(
  rule: str,
  layers: int,
  points: SplitPoints,
  found: Prices,
  most: Array | None,
  key: Array,
) -> tuple[Array, Array]:
  """Chooses every device's split point.

  Args:
    rule: `fixed`; `deepest`, the most layers that fit; `fastest`, the least
      a_n + s_n + b_n of those that fit, as if the device were alone; or
      `random`, any that fits.
    layers: of `fixed`; negative: all, the head too.
    points: of the model.
    found: of the devices.
    most: [K] bytes for training, None for no bound.
    key: of `random`.

  Returns:
    [K] int32, places in `points`, and [K] bool, it fits.

  Raises:
    InputError: no point behind so many layers.
  """
  fits = jnp.ones(found.memory.shape, bool)
  if most is not None:
    fits = found.memory <= most[:, None]
  count = len(points.layers)
  if rule == 'fixed':
    at = count - 1 if layers < 0 else _place(points, layers)
    return jnp.full(len(fits), at, jnp.int32), fits[:, at]
  score = {
    'deepest': lambda: jnp.broadcast_to(
      jnp.arange(count, dtype=jnp.float32), fits.shape
    ),
    'fastest': lambda: -(found.ahead + found.server + found.behind),
    'random': lambda: jax.random.uniform(key, fits.shape),
  }[rule]()
  best = jnp.where(fits, score, -jnp.inf).argmax(-1)
  return best.astype(jnp.int32), fits.any(-1)


def _place(points: SplitPoints, layers: int) -> int:
  if layers not in points.layers[:-1]:
    raise InputError(
      f'a split behind {layers} layers',
      f'behind {", ".join(map(str, points.layers[:-1]))}, where no block is '
      'cut, or -1 for the whole model on the device',
      'set --config.splitfed.layers to one of them; with '
      '--config.model.groups=layer every layer is a block',
    )
  return points.layers.index(layers)


def at(found: Prices, point: Array) -> Prices:
  """Takes every device's own point, [K] of every field."""
  return jax.tree.map(
    lambda v: jnp.take_along_axis(v, point[:, None], -1)[:, 0], found
  )


def barrier(own: Prices, active: Array) -> Array:
  """Computes the time of a step whose server waits for all, [] seconds.

  Args:
    own: [K] of every field.
    active: [K] bool, devices that take part.
  """
  ahead, server, behind = (
    jnp.where(active, v, 0.0) for v in (own.ahead, own.server, own.behind)
  )
  return ahead.max() + server.sum() + behind.max()


def queue(own: Prices, active: Array) -> Array:
  """Computes the time of a step whose server takes them as they come, [].

  Args: as `barrier`.
  """
  order = jnp.argsort(jnp.where(active, own.ahead, jnp.inf))
  ahead, server, behind = (
    jnp.where(active, v, 0.0)[order]
    for v in (own.ahead, own.server, own.behind)
  )
  busy = jnp.cumsum(server)
  done = busy + jax.lax.cummax(ahead - (busy - server))
  return jnp.where(active[order], done + behind, 0.0).max()


def check(
  points: SplitPoints,
  found: Any,
  fleet: Fleet,
  fits: np.ndarray,
  sit_out: bool,
) -> None:
  """Refuses a fleet whose devices cannot hold their part.

  Args:
    points: of the model.
    found: `Prices` of the fleet.
    fleet: [N].
    fits: [N] bool, the chosen point fits.
    sit_out: leave such devices out, where it is not everybody.

  Raises:
    InputError: such devices, that may not sit out.
  """
  real = np.asarray(fleet.samples) > 0
  small = real & ~np.asarray(fits)
  if not small.any() or (sit_out and (real & fits).any()):
    return
  least = np.asarray(found.memory)[small].min()
  raise InputError(
    f'{small.sum()} of {real.sum()} devices that cannot hold their part of the '
    f'model: the smallest of {len(points.layers)} takes {least / 1e6:.3g} MB',
    'a memory_mb that holds it',
    'raise it, lower --config.batch, split nearer to the input, or set '
    '--config.over_budget=sit_out',
  )
