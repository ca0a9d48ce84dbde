"""Puts the fusion of dual_health.py behind the encoders of sensor models."""

import dataclasses

import jax.numpy as jnp

from relief_jax.models import dual_health, encoders, layers
from relief_jax.models.encoders import Numbering, Spec
from relief_jax.models.work_builder import WorkBuilder
from relief_jax.task import Task
from relief_jax.types import Array


def trusting(spec: Spec, whole: Task, size: Array) -> Task:
  """Builds the model that weighs its modalities, of one that adds them up.

  Args:
    spec: of the model.
    whole: its encoders, groups and work.
    size: [G] numbers in a group.
  """

  def encode(params, frozen, m, x, cut):
    h = whole.encode(params, frozen, m, x[:, -spec.width :], cut)
    told = dual_health.readings(spec.dual, x, spec.width)
    return jnp.concatenate([h, told], -1)

  def by_name(run):
    run = jnp.asarray(run)
    return {m: run[i] for i, m in enumerate(spec.modalities)}

  def fuse(params, frozen, features, run):
    del frozen
    z = dual_health.pool(spec.dual, params, features, by_name(run))
    return encoders.head(params['head'], layers.bias(z, params['bias']))

  def penalty(params, features, run, weight, y):
    return dual_health.penalty(
      spec.dual, params, features, by_name(run), weight, y
    )

  return whole._replace(
    work=dataclasses.replace(whole.work, size=size),
    features=tuple(d + dual_health.READINGS for d in whole.features),
    encode=encode,
    fuse=fuse,
    penalty=penalty,
    past=spec.dual.past,
  )


def add_work(spec: Spec, number: Numbering, work: WorkBuilder, m: int) -> None:
  """Adds the cost of one modality's trust, and of its distance in training.

  A device keeps the moving average, so that each window is read once; that the
  simulation reads the windows before again is not charged.

  Args:
    spec: of the model.
    number: of its groups.
    work: is added to.
    m: number of the modality.
  """
  read = dual_health.flops(spec.width, spec.channels[m])
  # Times its weight; then the distance to a prototype.
  work.fwd[m] += read + 4 * spec.hidden
  work.wgrad[number.column[m]] += dual_health.FIT
  work.gradient_path(3 * spec.hidden, {number.column[m], *number.layer[m]})
