"""Cohort averaging without a budget: an ablation of RELIEF (**ours**).

Every block is averaged only within the cohort of devices that own its
modality. With `fill='input'` everybody still trains everything, and the mean
is over the owners among the trainers.
"""

import jax.numpy as jnp

from relief_jax.algorithms import fedavg
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Task


def cohort_mean(task: Task, setting: Setting) -> Method:
  """Builds cohort averaging; a block's error is sigma^2 / |C_m|.

  The error is that of the theory of RELIEF (arXiv 2604.04243).
  """

  def plan(server, round):
    del server
    owners = round.access & round.active[:, None]
    return fedavg.everybody(setting, round)._replace(
      counted=owners.astype(jnp.float32)
    )

  return fedavg.fedavg(task, setting)._replace(plan=plan)
