"""From a plan to FLOPs, bytes, seconds and joules; formulas only.

The model is FLOP-proportional (relief.md section 5, **[paper]** for the idea,
**ours** for the terms): F_n per sample, then

    t_n = T * B * F_n / speed_n + 8 * up_n / uplink_n + 8 * down_n / downlink_n
    E_n = P_active * t_comp + P_tx * t_up + P_rx * t_down

A round lasts as long as its slowest participant.
"""

from typing import NamedTuple

import jax.numpy as jnp

from relief_jax.types import Array, Fleet, Plan, Work


class Costs(NamedTuple):
  """What a round costs each client; every field [K] float32.

  Attributes:
    flops: of all local steps.
    upload: bytes.
    download: bytes.
    seconds: compute plus transfers.
    joules: compute plus transfers (idle waiting is added by `idle_joules`).
  """

  flops: Array
  upload: Array
  download: Array
  seconds: Array
  joules: Array


def step_flops(work: Work, run: Array, train: Array) -> Array:
  """FLOPs of one training sample, F_n(S) of relief.md section 5.

  Costs are not additive: groups share the gradient through the head, so the
  cost belongs to a set.

  Args:
    work: of the model.
    run: [..., M] bool, branches in the forward pass.
    train: [..., G] bool, groups trained.

  Returns:
    [...] float32 FLOPs per sample.
  """
  run, train = run.astype(jnp.float32), train.astype(jnp.float32)
  passes = (train @ work.path.T.astype(jnp.float32)) > 0
  return (
    work.shared
    + run @ work.fwd
    + train @ work.wgrad
    + passes.astype(jnp.float32) @ work.agrad
  )


def round_costs(
  work: Work,
  fleet: Fleet,
  plan: Plan,
  downloaded: Array,
  samples: Array,
  bits: Array,
) -> Costs:
  """Cost of a round for every participant.

  A client with no samples (padding) or that neither runs nor trains anything
  costs nothing.

  Args:
    work: of the model.
    fleet: [K] participants.
    plan: of the round.
    downloaded: [K, G] bool, groups that the device runs and so receives.
    samples: [K] float32, training samples processed, T * B.
    bits: [K] float32 or [], bits per number sent to the server.

  Returns:
    Costs, each field [K].
  """
  works = (fleet.samples > 0) & (plan.run.any(-1) | plan.trained.any(-1))
  live = works.astype(jnp.float32)
  flops = live * samples * step_flops(work, plan.run, plan.trained)
  upload = live * (plan.trained.astype(jnp.float32) @ work.size) * bits / 8
  download = live * (downloaded.astype(jnp.float32) @ work.size) * 4.0
  compute = flops / fleet.speed
  sending = 8 * upload / fleet.uplink
  receiving = 8 * download / fleet.downlink
  busy = jnp.stack([compute, sending, receiving], -1)
  return Costs(
    flops=flops,
    upload=upload,
    download=download,
    seconds=busy.sum(-1),
    joules=(busy * fleet.watts[:, :3]).sum(-1),
  )


def idle_joules(fleet: Fleet, seconds: Array) -> Array:
  """Energy of waiting for the slowest participant, [K] (an option).

  Args:
    fleet: [K] participants.
    seconds: [K] busy time of each.
  """
  return fleet.watts[:, 3] * (seconds.max() - seconds)
