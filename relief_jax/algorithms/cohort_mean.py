"""Cohort averaging without a budget: an ablation of RELIEF (**ours**).

Every group is averaged only within the cohort of devices that own its
modality. With `fill='input'` everybody still trains everything, and the mean
is over the owners among the trainers.
"""

import jax.numpy as jnp

from relief_jax.algorithms import fedavg
from relief_jax.rounds import parallel
from relief_jax.rounds.method import Recipe
from relief_jax.settings import Setting
from relief_jax.types import Algorithm, Task


def cohort_mean(task: Task, setting: Setting) -> Algorithm:
  """Cohort mean; a block's error is sigma^2 / |C_m| (relief.md section 4)."""

  def plan(memory, context):
    del memory
    owners = context.access & context.active[:, None]
    return fedavg.plan(setting, context)._replace(
      counted=owners.astype(jnp.float32)
    )

  return parallel.federated(task, setting, Recipe(plan=plan))
