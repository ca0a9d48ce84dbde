"""What a server knows of how well each sensor measures (**ours**).

The parts that `qqr_style` is made of and that RELIEF takes as an option:
prototypes of features, the dispersion of every sensor around them, and a
confidence in it that weighs updates.
"""

from typing import NamedTuple

import jax.numpy as jnp

from relief_jax import costs
from relief_jax.algorithms.parts import prototypes
from relief_jax.algorithms.parts.prototypes import Prototypes
from relief_jax.rounds.method import Context, Learner, Merge
from relief_jax.types import Array, Charge, Fleet, PyTree, Task


class Quality(NamedTuple):
  """What the server keeps.

  Attributes:
    prototypes: of features.
    dispersion: [N, M] running, NaN where not measured.
  """

  prototypes: Prototypes
  dispersion: Array


def init(task: Task, clients: int) -> Quality:
  """Nothing has been measured.

  Args:
    task: the model.
    clients: N.
  """
  return Quality(
    prototypes.init(task),
    jnp.full((clients, len(task.modalities)), jnp.nan, jnp.float32),
  )


def confidence(
  memory: Quality, context: Context, owned: Array, beta: float, start: int
) -> Array:
  """Of the participants' sensors, [K, M] in [0, 1]; 0 where none delivers.

  Args:
    memory: of all clients.
    context: of the round.
    owned: [K, M] bool, what delivers.
    beta: of `prototypes.confidence`.
    start: rounds before which every sensor is trusted.
  """
  measured = memory.dispersion
  every = prototypes.confidence(measured, ~jnp.isnan(measured), beta)
  trust = jnp.where(context.round < start, 1.0, every[context.place])
  return jnp.where(owned, trust, 0.0)


def weights(task: Task, trust: Array) -> Array:
  """Factor of each group's weight, [K, G]; 1 for shared groups.

  Args:
    task: the model.
    trust: [K, M].
  """
  columns = [
    jnp.ones(trust.shape[0]) if m < 0 else trust[:, m]
    for m in task.group_modality
  ]
  return jnp.stack(columns, -1)


def tell(
  task: Task, params: PyTree, learner: Learner, trust: Array
) -> tuple[PyTree, Array]:
  """Class sums weighted by confidence, and the dispersions of a device.

  Args:
    task: the model.
    params: P, as received.
    learner: the device; its `sent` are the prototypes.
    trust: [M] of its sensors.
  """
  sums, far = prototypes.survey(task, params, learner, learner.sent)
  each = {m: trust[i] for i, m in enumerate(task.modalities)}
  return prototypes.weighted(sums, each), far


def remember(
  memory: Quality, merge: Merge, context: Context, told: Array, ema: Array
) -> Quality:
  """After a round.

  Args:
    memory: before it.
    merge: of it, with what `tell` gave.
    context: of it.
    told: [K] bool, who trained, so that its zeros mean something.
    ema: of the running dispersion.
  """
  old = memory.dispersion[context.place]
  measured = jnp.where(told[:, None], merge.own, jnp.nan)
  fresh = prototypes.running(old, measured, ema)
  return Quality(
    prototypes.update(memory.prototypes, merge.told, jnp.bool_(True)),
    memory.dispersion.at[context.place].set(fresh),
  )


def charge(
  task: Task, fleet: Fleet, run: Array, everything: bool = False
) -> Charge:
  """Prototypes down, sums and dispersions up, and a forward pass, [K].

  Args:
    task: the model.
    fleet: [K] participants.
    run: [K, M] bool, branches that run.
    everything: all prototypes come down, not only those of what runs.
  """
  message = 4 * prototypes.sizes(task)
  return Charge(
    download=costs.total(run | everything, message),
    upload=costs.total(run, message + 4),
    flops=fleet.samples * costs.total(run, task.work.fwd),
  )
