"""Chooses where devices split a model, and prices a step of split training.

With c_n layers on device n, per step of a batch of B samples,

    a_n = T_F + T_up      forward pass of the device's part, activations up
    s_n                   forward and backward pass of the server's part
    b_n = T_down + T_B    gradients down, backward pass of the device's part

and the last layers of a device, m_n, where its labels stay. How long a step of
all of them takes is a matter of the server (server_order.py).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, costs
from relief_jax.errors import InputError
from relief_jax.task import SplitPoints, Task, Work
from relief_jax.types import Array, Fleet

RULES = ('fixed', 'deepest', 'fastest', 'random')
# Bytes of a sample's label, int32 as in the bank.
_LABEL = 4.0


class Ledger(NamedTuple):
  """Says what crosses in a step of a method; static.

  Activations and gradients are numbers of samples' crossings: those of the
  split behind the device's first layers, and of the `end` in front of its last
  ones, where the labels stay on the device (U-shaped).

  Attributes:
    act_up: times that activations at the split go up.
    front: number of an earlier point whose activations go up, too; None: none.
    grad_down: times that gradients at the split come down.
    act_down: times that activations at the end come down.
    grad_up: times that gradients at the end go up.
    labels: labels go up.
    scalar_up: numbers up, of 4 bytes.
    scalar_down: numbers down, of 4 bytes.
    weights: the device's part goes up and down, once a round.
    trains: the device's part trains; else it is only run.
  """

  act_up: int = 1
  grad_down: int = 1
  act_down: int = 0
  grad_up: int = 0
  labels: bool = True
  scalar_up: int = 0
  scalar_down: int = 0
  weights: bool = True
  trains: bool = True
  front: int | None = None


class Split(NamedTuple):
  """Describes the server of split training, and its steps; static.

  Attributes:
    batch: B.
    slots: numbers that the optimiser keeps per parameter.
    server: FLOP/s of the server, inf for no time at all.
    ledger: of the method.
    probes: forward passes of the device's part in place of its backward pass,
      each with its tangent; 0 where it has one.
    coded: [S, M] bytes a sample of activations up and of gradients down, where
      they are coded; None: as in `SplitPoints.sent`.
  """

  batch: int
  slots: float
  server: float
  ledger: Ledger = Ledger()
  probes: int = 0
  coded: tuple[np.ndarray, np.ndarray] | None = None


class Prices(NamedTuple):
  """Holds what a step costs at every split point; all [K, S] float32.

  Attributes:
    ahead: a_n, seconds.
    server: s_n, seconds.
    behind: b_n, seconds.
    middle: seconds of the device's last layers, with what crosses there.
    flops: of them.
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
  middle: Array | float = 0.0
  flops: Array | float = 0.0


def required(task: Task, method: str) -> SplitPoints:
  """Gives a model's split points.

  Raises:
    InputError: it has none.
  """
  found = task.submodels.get('split')
  if task.experts is not None:
    raise InputError(
      f'{method} with a model that has a mixture of experts',
      'one that can be split between a device and a server',
      'set --config.model.fusion=concat, or of the transformer '
      '--config.model.experts.blocks=0',
    )
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
  batch: Array | None = None,
) -> Prices:
  """Prices a step of every device at every point.

  Args:
    task: the model.
    points: of it.
    split: of the server.
    fleet: [K] participants.
    run: [K, M] bool, branches in the forward pass.
    train: [K, G] bool, blocks trained, wherever they are.
    batch: [K] samples of each device's batch; None: all `Split.batch`.
  """
  ledger, size = split.ledger, split.batch if batch is None else batch
  whole = size * costs.step_flops(task.work, run, train)
  speed = jnp.where(fleet.samples > 0, fleet.speed, 1.0)
  up_rate = jnp.where(fleet.samples > 0, fleet.uplink, 1.0)
  down_rate = jnp.where(fleet.samples > 0, fleet.downlink, 1.0)
  ends = _device(task, points, split, len(points.work) - 2, run, train, size)
  end = whole - ends.both if ledger.act_down else jnp.zeros_like(whole)
  # Never coded: what crosses in front of a device's last layers.
  middle_up, middle_down = ledger.grad_up * ends.up, ledger.act_down * ends.down
  columns = []
  for s in range(len(points.work)):
    own = _device(task, points, split, s, run, train, size)
    last = s == len(points.work) - 1
    ahead = ledger.act_up * own.up
    if ledger.front is not None and s > ledger.front:
      early = jnp.asarray(points.sent[ledger.front])
      ahead += size * costs.total(run, early)
    if ledger.labels:
      ahead += size * _LABEL
    back = ledger.grad_down * own.down if own.backward else 0.0
    behind = jnp.where(own.trains, back + 4.0 * ledger.scalar_down, 0.0)
    more = jnp.where(own.trains, 4.0 * ledger.scalar_up, 0.0)
    crossed = jnp.float32(not last)
    columns.append(
      Prices(
        ahead=own.forward / speed + 8 * crossed * ahead / up_rate,
        # What two sums of floats leave of nothing is no work.
        server=jnp.maximum(whole - own.first_order - end, 0.0)
        * crossed
        / split.server,
        behind=(own.both - own.forward) / speed
        + 8 * crossed * (behind / down_rate + more / up_rate),
        up=crossed * (ahead + more + middle_up),
        down=crossed * (behind + middle_down),
        memory=own.memory,
        middle=crossed
        * (end / speed + 8 * (middle_up / up_rate + middle_down / down_rate)),
        flops=crossed * end,
      )
    )
  return jax.tree.map(lambda *v: jnp.stack(v, -1), *columns)


class _Device(NamedTuple):
  """Holds what the device's part takes at one point, [K] of every field.

  Attributes:
    forward: FLOPs.
    both: FLOPs of all that the device computes.
    first_order: FLOPs of a forward and a backward pass.
    up: bytes of a batch's activations.
    down: bytes of their gradients.
    memory: bytes.
    trains: bool, something on the device does.
    backward: gradients at the split are wanted at all; static.
  """

  forward: Array
  both: Array
  first_order: Array
  up: Array
  down: Array
  memory: Array
  trains: Array
  backward: bool


def _device(task, points, split, s, run, train, size) -> _Device:
  work, memory = points.work[s], points.memory[s]
  held = jnp.asarray(points.held[s])[None]
  mine = train & held & split.ledger.trains
  none = jnp.zeros_like(mine)
  forward = size * costs.step_flops(work, run, none)
  first_order = size * costs.step_flops(work, run, mine)
  last = s == len(points.work) - 1
  by_probes = split.probes and not last
  used = jnp.zeros(run.shape[0])
  if memory is not None:
    access = blocks.owned_groups(run, task.blocks.modality)
    used = costs.training_bytes(
      memory,
      task.work,
      access & held,
      none if by_probes else mine,
      size,
      split.slots,
    )
  up, down = (
    # Zeros and ones times whole numbers of bytes.
    size * costs.total(run, jnp.asarray(sent[s], jnp.float32))
    for sent in split.coded or (points.sent, points.sent)
  )
  return _Device(
    forward=forward,
    both=(1 + split.probes) * forward if by_probes else first_order,
    first_order=first_order,
    up=up,
    down=down,
    memory=used,
    trains=mine.any(-1),
    backward=any(points.held[s]),
  )


def device_work(points: SplitPoints, split: Split) -> Work:
  """Stacks the work of the device's part at every point, [S] of every field.

  Args:
    points: of the model.
    split: of the method.
  """
  if not split.probes:
    return costs.stack(points.work)
  *parts, last = points.work

  def probed(work: Work) -> Work:
    def passes(v):
      return (1 + split.probes) * v

    tokens = work.tokens and dataclasses.replace(
      work.tokens,
      shared=passes(work.tokens.shared),
      wgrad=0 * work.tokens.wgrad,
      agrad=0 * work.tokens.agrad,
    )
    return dataclasses.replace(
      work,
      shared=passes(work.shared),
      fwd=passes(work.fwd),
      wgrad=0 * work.wgrad,
      agrad=0 * work.agrad,
      tokens=tokens,
    )

  return costs.stack([*map(probed, parts), last])


def choose(
  rule: str,
  layers: int,
  points: SplitPoints,
  found: Prices,
  most: Array | None,
  keys: Array,
  method: str = 'splitfed',
) -> tuple[Array, Array]:
  """Chooses every device's split point.

  Args:
    rule: `fixed`; `deepest`, the most layers that fit; `fastest`, the least
      a_n + s_n + b_n of those that fit, as if the device were alone; or
      `random`, any that fits.
    layers: of `fixed`; -1: all, the head too; -2: all but what is behind the
      last point.
    points: of the model.
    found: of the devices.
    most: [K] bytes for training, None for no bound.
    keys: [K] of `random`, a device's own.
    method: its name, for messages.

  Returns:
    [K] int32, places in `points`, and [K] bool, it fits.

  Raises:
    InputError: no point behind so many layers.
  """
  fits = jnp.ones(found.memory.shape, bool)
  if most is not None:
    fits = found.memory <= most[:, None]
  count = fits.shape[-1]
  if rule == 'fixed':
    at = place(points, layers, method)
    return jnp.full(len(fits), at, jnp.int32), fits[:, at]
  score = {
    'deepest': lambda: jnp.broadcast_to(
      jnp.arange(count, dtype=jnp.float32), fits.shape
    ),
    'fastest': lambda: -alone(found),
    'random': lambda: jax.vmap(lambda k: jax.random.uniform(k, (count,)))(keys),
  }[rule]()
  best = jnp.where(fits, score, -jnp.inf).argmax(-1)
  return best.astype(jnp.int32), fits.any(-1)


def place(points: SplitPoints, layers: int, method: str) -> int:
  """Finds the place of a split in `points`.

  Args:
    points: of the model.
    layers: on the device; negative from the end, as in `choose`.
    method: its name, for messages.

  Raises:
    InputError: no point behind so many layers.
  """
  if layers < 0:
    return max(len(points.layers) + layers, 0)
  if layers not in points.layers[:-1]:
    raise InputError(
      f'a split behind {layers} layers',
      f'behind {", ".join(map(str, points.layers[:-1]))}, where no block is '
      'cut, or -1 for the whole model on the device',
      f'set --config.{method}.layers to one of them; with '
      '--config.model.groups=layer every layer is a block',
    )
  return points.layers.index(layers)


def alone(found: Prices) -> Array:
  """Computes the time of a step of each device if it were alone, seconds."""
  return found.ahead + found.server + found.middle + found.behind


def at(found: Any, point: Array) -> Any:
  """Takes every device's own point, [K] of every field."""
  return jax.tree.map(
    lambda v: jnp.take_along_axis(v, point[:, None], -1)[:, 0], found
  )


def check(
  points: SplitPoints,
  found: Prices,
  fleet: Fleet,
  fits: np.ndarray,
  sit_out: bool,
) -> None:
  """Refuses a fleet whose devices cannot hold their part.

  Args:
    points: of the model.
    found: of the fleet.
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
