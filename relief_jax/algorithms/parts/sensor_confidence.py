"""Tracks the server's confidence in the measures of each sensor (**ours**).

The parts that `qqr_style` is made of and that RELIEF takes as an option:
prototypes of features, the dispersion of every sensor around them, and a
confidence in it by which updates are weighted.
"""

from typing import NamedTuple

import jax.numpy as jnp

from relief_jax import costs
from relief_jax.aggregation.mean import Mean
from relief_jax.algorithms.parts import prototypes
from relief_jax.algorithms.parts.prototypes import Prototypes
from relief_jax.clients.device import Device, Received
from relief_jax.rounds.method import Method, Round
from relief_jax.task import CostOverride, Task
from relief_jax.types import Array, Fleet, PyTree


class SensorConfidence(NamedTuple):
  """Holds the server's prototypes and dispersions.

  Attributes:
    prototypes: of features.
    dispersion: [N, M] running, NaN where not measured.
  """

  prototypes: Prototypes
  dispersion: Array


def init(task: Task, clients: int) -> SensorConfidence:
  """Builds the state before any measure.

  Args:
    task: the model.
    clients: N.
  """
  return SensorConfidence(
    prototypes.init(task),
    jnp.full((clients, len(task.modalities)), jnp.nan, jnp.float32),
  )


def confidence(
  confidence: SensorConfidence,
  round: Round,
  owned: Array,
  beta: float,
  start: int,
) -> Array:
  """Computes confidence in participants' sensors, [K, M] in [0, 1].

  0 where none delivers.

  Args:
    confidence: of all clients.
    round: of the participants.
    owned: [K, M] bool, sensors that deliver.
    beta: of `prototypes.confidence`.
    start: rounds before which every sensor is trusted.
  """
  measured = confidence.dispersion
  every = prototypes.confidence(measured, ~jnp.isnan(measured), beta)
  trust = jnp.where(round.round_index < start, 1.0, every[round.place])
  return jnp.where(owned, trust, 0.0)


def weights(task: Task, trust: Array) -> Array:
  """Computes the factor of each group's weight, [K, G]; 1 for shared groups.

  Args:
    task: the model.
    trust: [K, M].
  """
  columns = [
    jnp.ones(trust.shape[0]) if m < 0 else trust[:, m]
    for m in task.blocks.modality
  ]
  return jnp.stack(columns, -1)


def client_statistics(
  task: Task, received: Received, device: Device, trust: Array
) -> tuple[PyTree, Array]:
  """Computes class sums weighted by confidence, and a device's dispersions.

  Args:
    task: the model.
    received: by the device; beside the model it is sent the prototypes.
    device: that measures.
    trust: [M] of its sensors.
  """
  sums, far = prototypes.survey(task, received.params, device, received.extra)
  each = {m: trust[i] for i, m in enumerate(task.modalities)}
  return prototypes.weighted(sums, each), far


def remember(
  confidence: SensorConfidence, mean: Mean, round: Round
) -> SensorConfidence:
  """Updates the server's state after a round.

  Args:
    confidence: before it.
    mean: of it, with `client_statistics`.
    round: that is over; its `ema` is of the running dispersion.
  """
  ema = round.hparams['ema']
  # Who did not train sent zeros that mean nothing.
  sent = round.plan.trained.any(-1)
  old = confidence.dispersion[round.place]
  measured = jnp.where(sent[:, None], mean.rows, jnp.nan)
  fresh = prototypes.running(old, measured, ema)
  return SensorConfidence(
    prototypes.update(confidence.prototypes, mean.sums, jnp.bool_(True)),
    confidence.dispersion.at[round.place].set(fresh),
  )


def extra_cost(
  task: Task, fleet: Fleet, run: Array, everything: bool = False
) -> CostOverride:
  """Charges prototypes down, sums and dispersions up, and a forward pass.

  Args:
    task: the model.
    fleet: [K] participants.
    run: [K, M] bool, branches that run.
    everything: all prototypes come down, not only those of what runs.
  """
  message = 4 * prototypes.sizes(task)
  return CostOverride(
    download=costs.total(run | everything, message),
    upload=costs.total(run, message + 4),
    flops=fleet.samples * costs.total(run, task.work.fwd),
  )


def with_confidence(
  task: Task, method: Method, clients: int, beta: float, start: int
) -> Method:
  """Weights a method's updates by confidence in their sensors (**ours**).

  Args:
    task: the model.
    method: that sends nothing beside the model.
    clients: N.
    beta: of `prototypes.confidence`.
    start: rounds before which every sensor is trusted.
  """

  def plan(server, round):
    inner, known = server.method_state
    found = method.plan(server._replace(method_state=inner), round)
    trust = confidence(known, round, found.run, beta, start)
    return found._replace(
      counted=found.counted * weights(task, trust),
      client_args=trust,
      cost=extra_cost(task, round.fleet, found.run),
    )

  def client(received, device):
    sums, far = client_statistics(task, received, device, device.args)
    return method.client(received, device)._replace(sums=sums, rows=far)

  def server(state, mean, round):
    inner, known = state.method_state
    new, own = method.server(state._replace(method_state=inner), mean, round)
    return new._replace(
      method_state=(new.method_state, remember(known, mean, round))
    ), own

  def send(server):
    inner, known = server.method_state
    received = method.send(server._replace(method_state=inner))
    return received._replace(extra=known.prototypes)

  inner_divergence = method.divergence
  return method._replace(
    plan=plan,
    client=client,
    server=server,
    send=send,
    init=lambda params: (method.init(params), init(task, clients)),
    divergence=inner_divergence and (lambda both: inner_divergence(both[0])),
    traits=method.traits._replace(sums=True),
  )
