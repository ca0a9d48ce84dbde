"""FedAvg (McMahan et al., 2017, https://arxiv.org/abs/1602.05629).

Everybody trains everything and everybody counts. `fill='input'` runs absent
sensors' encoders on filled windows and uploads their blocks: the waste that
RELIEF is about. `fill='skip'` skips them, but absent blocks still count with a
zero update, so that rare blocks are diluted; dividing by the owners instead
would be a cohort mean, which has its own name. Grade: published.
"""

import jax.numpy as jnp

from relief_jax.aggregation.mean import masked_mean
from relief_jax.clients.work import local_sgd
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round
from relief_jax.rounds.server import server_step
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task


def everybody(setting: Setting, round: Round) -> Plan:
  """Plans that all active devices train all in reach and count everywhere."""
  active = round.active[:, None]
  access = round.access | (setting.fill == 'input')
  run = round.fleet.owned | (setting.fill == 'input')
  return Plan(
    run=run & active,
    trained=access & active,
    counted=jnp.broadcast_to(active, access.shape).astype(jnp.float32),
  )


@Facts(fill='input')
def fedavg(task: Task, setting: Setting) -> Method:
  """Builds FedAvg."""
  return Method(
    plan=lambda server, round: everybody(setting, round),
    client=local_sgd(task),
    aggregate=masked_mean(task),
    server=server_step(setting),
  )
