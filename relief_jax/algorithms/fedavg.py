"""FedAvg (McMahan et al., 2017, https://arxiv.org/abs/1602.05629).

Everybody trains everything and everybody counts. `fill='input'` runs absent
sensors' encoders on filled windows and uploads their groups: the waste that
RELIEF is about. `fill='skip'` skips them, but absent groups still count with a
zero update, so that rare blocks are diluted; dividing by the owners instead
would be a cohort mean, which has its own name.
"""

import jax.numpy as jnp

from relief_jax.rounds import parallel
from relief_jax.rounds.method import Context, Recipe
from relief_jax.settings import Setting
from relief_jax.types import Algorithm, Plan, Task


def plan(setting: Setting, context: Context) -> Plan:
  """Everybody active trains all it can reach and counts everywhere."""
  active = context.active[:, None]
  access = context.access | (setting.fill == 'input')
  run = context.fleet.owned | (setting.fill == 'input')
  return Plan(
    run=run & active,
    trained=access & active,
    counted=jnp.broadcast_to(active, access.shape).astype(jnp.float32),
  )


def recipe(setting: Setting) -> Recipe:
  """FedAvg as a record: nothing but its plan."""
  return Recipe(plan=lambda memory, context: plan(setting, context))


def fedavg(task: Task, setting: Setting) -> Algorithm:
  """FedAvg; grade: published."""
  return parallel.federated(task, setting, recipe(setting))
