"""Computes class prototypes of features, and a sensor's distance from them.

A prototype is the mean feature of a class in one modality. Devices send sums
over their windows; the server keeps a running mean over the updates of each
prototype (MMO-FL, https://arxiv.org/abs/2505.16138, eq. 15-17 as a replication
cites them). A noisy sensor's features lie far from the prototypes: their
dispersion, over the cohort's median, is what confidence is made of (**ours**).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import blocks
from relief_jax.clients.device import Device
from relief_jax.task import Task
from relief_jax.types import Array, PyTree


class Prototypes(NamedTuple):
  """Holds the server's class prototypes.

  Attributes:
    mean: {modality: [C, d_m]}, zeros until a device sent one.
    updates: {modality: [C] int32}, how many made it.
  """

  mean: dict[str, Array]
  updates: dict[str, Array]


class Sums(NamedTuple):
  """Holds the devices' class sums, weighted and summed.

  Attributes:
    features: {modality: [C, d_m]}.
    weight: {modality: [C]}.
  """

  features: dict[str, Array]
  weight: dict[str, Array]


def init(task: Task) -> Prototypes:
  """Builds the state without a prototype."""
  widths = dict(zip(task.modalities, _sizes(task), strict=True))
  return Prototypes(
    mean={m: jnp.zeros((task.classes, d)) for m, d in widths.items()},
    updates={m: jnp.zeros(task.classes, jnp.int32) for m in widths},
  )


def _sizes(task: Task) -> tuple[int, ...]:
  return blocks.features(task, 'a method of class prototypes')


def sizes(task: Task) -> Array:
  """Counts the numbers in each modality's prototypes, [M] float32."""
  return jnp.asarray([task.classes * d for d in _sizes(task)], jnp.float32)


def known(prototypes: Prototypes, task: Task) -> Array:
  """Marks modalities with at least one prototype, [M] bool."""
  return jnp.stack([(prototypes.updates[m] > 0).any() for m in task.modalities])


def survey(
  task: Task, params: PyTree, device: Device, prototypes: Prototypes
) -> tuple[Sums, Array]:
  """Computes class sums and dispersions of a device's own windows.

  Args:
    task: the model.
    params: P, as received.
    device: that measures.
    prototypes: as received.

  Returns:
    Sums, each window counted once, and disp [M]: the mean squared distance of
    a feature number to its class's prototype over the windows of classes that
    have one, NaN where there is none. Nothing of sensors that do not deliver.
  """

  def add(step):
    features = device.forward(params, step).features
    y = device.classes(step)
    real = step.weight > 0
    classes = prototypes.updates[task.modalities[0]].shape[0]
    one_hot = jax.nn.one_hot(y, classes) * real[:, None]
    sums, weight, far, seen = {}, {}, [], []
    for i, m in enumerate(task.modalities):
      if m not in features:  # of no device in this program
        sums[m] = jnp.zeros_like(prototypes.mean[m])
        weight[m] = jnp.zeros(classes)
        far.append(jnp.float32(0.0))
        seen.append(jnp.float32(0.0))
        continue
      z, on = features[m], step.run[i].astype(jnp.float32)
      # Sums of many windows: not in an accelerator's fewer bits.
      sums[m] = jnp.matmul(one_hot.T, z, precision='highest') * on
      weight[m] = one_hot.sum(0) * on
      counts = real & (prototypes.updates[m][y] > 0) & step.run[i]
      off = jnp.square(z - prototypes.mean[m][y]).mean(-1)
      far.append(jnp.where(counts, off, 0.0).sum())
      seen.append(counts.sum().astype(jnp.float32))
    return Sums(sums, weight), jnp.stack(far), jnp.stack(seen)

  sums, far, seen = device.total(add)
  return sums, jnp.where(seen > 0, far / jnp.maximum(seen, 1), jnp.nan)


def weighted(sums: Sums, weight: dict[str, Array], mean: bool = False) -> Sums:
  """Computes a device's contribution.

  Args:
    sums: of the device.
    weight: {modality: []}, 0 to leave it out.
    mean: its class means count instead of its windows (eq. 16).
  """
  features, count = sums.features, sums.weight
  if mean:
    features = {
      m: v / jnp.maximum(count[m], 1)[:, None] for m, v in features.items()
    }
    count = {m: (v > 0).astype(jnp.float32) for m, v in count.items()}
  return Sums(
    {
      m: jnp.where(weight[m] > 0, weight[m] * v, 0) for m, v in features.items()
    },
    {m: weight[m] * v for m, v in count.items()},
  )


def update(old: Prototypes, sums: Sums, now: Array) -> Prototypes:
  """Updates the running means after a round (eq. 17, by count of updates).

  Args:
    old: prototypes.
    sums: over the devices of the round.
    now: [] bool, prototypes are built in this round.
  """
  mean, count = {}, {}
  for m, value in old.mean.items():
    seen = now & (sums.weight[m] > 0)
    fresh = sums.features[m] / jnp.maximum(sums.weight[m], 1e-30)[:, None]
    so_far = old.updates[m][:, None]
    mean[m] = jnp.where(
      seen[:, None], (so_far * value + fresh) / (so_far + 1), value
    )
    count[m] = old.updates[m] + seen
  return Prototypes(mean, count)


def substitute(
  prototypes: Prototypes, y: Array, features: dict[str, Array], run: Array
) -> tuple[dict[str, Array], Array]:
  """Puts the prototype of the label where a modality does not run (eq. 18).

  Only for training: at test it would leak the label. It leaks in training too
  (the head learns to read the slot), which is the method's weak point.

  Args:
    prototypes: as received.
    y: [B] classes.
    features: {modality: [B, d_m]}.
    run: [M] bool.

  Returns:
    Features, and which of them the fusion may see, [M] bool.
  """
  filled, seen = dict(features), []
  for i, (m, mean) in enumerate(prototypes.mean.items()):
    there = (prototypes.updates[m] > 0).any()
    slot = jax.lax.stop_gradient(mean[y])
    filled[m] = jnp.where(run[i], features.get(m, 0.0), slot)
    seen.append(run[i] | there)
  return filled, jnp.stack(seen)


def confidence(dispersion: Array, owned: Array, beta: Array | float) -> Array:
  """Computes the trust in each sensor, [N, M] in [0, 1] (**ours**).

  exp(-beta relu(disp / median - 1)), the median over the owners that have been
  measured; 1 for who has not been.

  Args:
    dispersion: [N, M] running dispersions, NaN where not measured.
    owned: [N, M] bool.
    beta: of the fall.
  """
  own = jnp.where(owned, dispersion, jnp.nan)
  middle = jnp.nanmedian(own, axis=0, keepdims=True)
  ratio = own / jnp.maximum(middle, 1e-30)
  trust = jnp.exp(-beta * jnp.maximum(ratio - 1, 0.0))
  return jnp.where(jnp.isfinite(trust), trust, 1.0)


def running(old: Array, new: Array, ema: Array) -> Array:
  """Blends (1 - ema) old + ema new where measured; keeps a first measure.

  Args:
    old: [K, M], NaN where never measured.
    new: [K, M], NaN where not measured now.
    ema: [] in [0, 1].
  """
  mixed = jnp.where(jnp.isnan(old), new, (1 - ema) * old + ema * new)
  return jnp.where(jnp.isnan(new), old, mixed)
