"""Computes FLOPs, bytes, seconds and joules of a plan; formulas only.

The model is FLOP-proportional (the idea is of RELIEF, arXiv 2604.04243; the
terms are **ours**): F_n per sample, then

    t_n = T * B * F_n / speed_n + 8 * up_n / uplink_n + 8 * down_n / downlink_n
    E_n = P_active * t_comp + P_tx * t_up + P_rx * t_down

A round lasts as long as its slowest participant.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.task import Memory, Plan, Work
from relief_jax.types import Array, Fleet

_PACKET = 1500.0  # bytes


class Costs(NamedTuple):
  """Holds the costs of a round for each client; every field [K] float32.

  Attributes:
    flops: of the round.
    upload: bytes, those sent again included.
    download: bytes, likewise.
    seconds: compute plus transfers, and waiting inside the round.
    sending: seconds of it.
    receiving: seconds of it.
    joules: compute plus transfers (idle waiting is added by `idle_joules`).
    waiting: seconds inside the round in which it does neither.
  """

  flops: Array
  upload: Array
  download: Array
  seconds: Array
  sending: Array
  receiving: Array
  joules: Array
  waiting: Array


def total(chosen: Array, values: Array) -> Array:
  """Sums `values` [G] over the chosen ones, [..., G] -> [...].

  Where `values` have axes [..., G] of their own these are `chosen`'s. At full
  precision: by default an accelerator rounds the factors of a product
  to TF32 or bfloat16, and a budget would be compared with a cost that is off by
  up to 0.1 or 0.4 %.
  """
  chosen = chosen.astype(jnp.float32)
  if values.ndim > 1:
    return jnp.multiply(*jnp.broadcast_arrays(chosen, values)).sum(-1)
  return jnp.matmul(chosen, values, precision='highest')


def step_flops(work: Work, run: Array, train: Array) -> Array:
  """Computes FLOPs of one training sample, F_n(S), as at the top.

  Costs are not additive: groups share the gradient through the head, so the
  cost belongs to a set.

  Args:
    work: of the model.
    run: [..., M] bool, branches in the forward pass.
    train: [..., G] bool, groups trained.

  Returns:
    [...] float32 FLOPs per sample.
  """
  work = of_run(work, run)
  # Zeros and ones: exact at any precision.
  passes = train.astype(jnp.float32) @ work.path.T.astype(jnp.float32) > 0
  return (
    work.shared
    + total(run, work.fwd)
    + total(train, work.wgrad)
    + total(passes, work.agrad)
  )


def of_run(work: Work, run: Array) -> Work:
  """Computes the work of a model of which some modalities run.

  Args:
    work: of the model; as it is, where none of it depends on them.
    run: [..., M] bool, branches in the forward pass.

  Returns:
    Work without `tokens`; `shared`, `wgrad` and `agrad` have the axes of `run`
    before their own.
  """
  if work.tokens is None:
    return work
  share = total(run, work.tokens.share)

  def grown(fixed, by_tokens):
    power = share.reshape(share.shape + (1,) * fixed.ndim)
    power, fixed, linear, square = jnp.broadcast_arrays(
      power, fixed, *by_tokens
    )
    return fixed + power * linear + power**2 * square

  return dataclasses.replace(
    work,
    shared=grown(work.shared, work.tokens.shared),
    wgrad=grown(work.wgrad, work.tokens.wgrad),
    agrad=grown(work.agrad, work.tokens.agrad),
    tokens=None,
  )


def training_bytes(
  memory: Memory,
  work: Work,
  held: Array,
  train: Array,
  batch: int,
  slots: float,
) -> Array:
  """Computes the memory of a device while it trains, in bytes (**ours**).

  The parameters of all blocks that run; the gradient and the optimiser's state
  of those that are trained; of a batch the activations that their backward pass
  reads, and the operation of the forward pass that takes most beside them.
  float32 throughout; what the system and the program itself take is not in it.

  Args:
    memory: of the model.
    work: of the model; its sizes.
    held: [..., G] bool, blocks on the device.
    train: [..., G] bool, blocks trained.
    batch: samples of a step.
    slots: numbers that the optimiser keeps per parameter, 1 for momentum.

  Returns:
    [...] float32.
  """
  reads = train.astype(jnp.float32) @ memory.readers.T.astype(jnp.float32) > 0
  return (
    memory.fixed
    + 4 * total(held, work.size)
    + 4 * (1 + slots) * total(train, work.size)
    + batch * (total(reads, memory.kept) + memory.working)
  )


def stack(works: Sequence[Work]) -> Work:
  """Stacks several sub-models' work in one record, [levels] of every field.

  Args:
    works: of models with the same groups, whatever their gradient paths.
  """
  most = max(work.agrad.size for work in works)

  def padded(work):
    more = most - work.agrad.size
    tokens = work.tokens and dataclasses.replace(
      work.tokens, agrad=jnp.pad(work.tokens.agrad, ((0, 0), (0, more)))
    )
    return dataclasses.replace(
      work,
      agrad=jnp.pad(work.agrad, (0, more)),
      path=jnp.pad(work.path, ((0, more), (0, 0))),
      tokens=tokens,
    )

  return jax.tree.map(lambda *v: jnp.stack(v), *map(padded, works))


def plan_flops(work: Work, plan: Plan) -> Array:
  """Computes FLOPs of a training sample of every client's plan, [K] float32."""
  if plan.cost.work is None:
    return step_flops(work, plan.run, plan.trained)
  return jax.vmap(step_flops)(plan.cost.work, plan.run, plan.trained)


def working(fleet: Fleet, plan: Plan) -> Array:
  """Tells whether a client takes part: has data, runs or trains something.

  [K] bool.
  """
  return (fleet.samples > 0) & (plan.run.any(-1) | plan.trained.any(-1))


def round_costs(
  work: Work,
  fleet: Fleet,
  plan: Plan,
  samples: Array,
  upload: Array,
  download: Array,
) -> Costs:
  """Computes the cost of a round for every participant.

  A client with no samples (padding) or that neither runs nor trains anything
  costs nothing, whatever its speed, links and power say. Bytes are float32,
  exact up to 2**24 and to 7 digits beyond: add them up over rounds in float64.

  Args:
    work: of the model.
    fleet: [K] participants.
    plan: of the round.
    samples: [K] float32, training samples processed, T * B.
    upload: [K] float32 bytes that a device which works sends.
    download: [K] float32 bytes that it is sent.

  Returns:
    Costs, each field [K].
  """
  works = working(fleet, plan)
  live = works.astype(jnp.float32)
  flops = live * samples * plan_flops(work, plan)
  if plan.cost.flops is not None:
    flops += live * plan.cost.flops
  if plan.cost.download is not None:
    download += plan.cost.download
  if plan.cost.upload is not None:
    upload += plan.cost.upload
  upload, download = live * upload, live * download
  if fleet.conditions is not None and fleet.conditions.loss is not None:
    luck = fleet.conditions.luck
    upload = on_air(upload, fleet.conditions.loss, luck[:, 0])
    download = on_air(download, fleet.conditions.loss, luck[:, 1])
  # A padding client may have a speed of 0, and 0 / 0 would spoil every sum.
  compute = flops / jnp.where(works, fleet.speed, 1.0)
  sending = 8 * upload / jnp.where(works, fleet.uplink, 1.0)
  receiving = 8 * download / jnp.where(works, fleet.downlink, 1.0)
  busy = jnp.stack([compute, sending, receiving], -1)
  waiting = jnp.zeros_like(live)
  if plan.cost.waiting is not None:
    waiting = live * plan.cost.waiting
  return Costs(
    flops=flops,
    upload=upload,
    download=download,
    seconds=busy.sum(-1) + waiting,
    sending=sending,
    receiving=receiving,
    joules=(busy * jnp.where(works[:, None], fleet.watts[:, :3], 0.0)).sum(-1),
    waiting=waiting,
  )


def on_air(size: Array, loss: Array, luck: Array) -> Array:
  """Computes bytes sent for messages of which packets are lost (**ours**), [K].

  Of n packets of 1500 bytes each is sent until it arrives: n / (1 - p)
  transmissions on average with variance n p / (1 - p)^2; here a normal deviate,
  and at least n.

  Args:
    size: [K] bytes.
    loss: p in [0, 1).
    luck: [K] standard normal.
  """
  packets = jnp.ceil(size / _PACKET)
  mean = packets / (1 - loss)
  spread = jnp.sqrt(packets * loss) / (1 - loss)
  sendings = jnp.maximum(mean + luck * spread, packets)
  return jnp.where(packets > 0, size * sendings / jnp.maximum(packets, 1), 0.0)


def idle_joules(
  fleet: Fleet, seconds: Array, inside: Array | float = 0.0
) -> Array:
  """Computes the energy of waiting for the slowest participant, [K] joules.

  An option.

  A client that did nothing (padding, or sitting out) is not in the round and
  not waiting.

  Args:
    fleet: [K] participants, all of the round's and not one block of them.
    seconds: [K] time of each until it is done.
    inside: [K] seconds of it in which it waits.
  """
  waiting = seconds.max() - seconds + inside
  return jnp.where(seconds > 0, fleet.watts[:, 3] * waiting, 0.0)
