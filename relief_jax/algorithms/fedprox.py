"""FedProx (Li et al., 2020, https://arxiv.org/abs/1812.06127).

FedAvg with a pull to the received weights, (mu / 2) |theta_n - theta|^2, the
squared norm. Untrained blocks do not move, so they add nothing. Grade:
published.
"""

import jax
import jax.numpy as jnp
import optax

from relief_jax.algorithms.fedavg import fedavg
from relief_jax.clients.work import local_sgd
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Task


@Facts(fill='input')
def fedprox(task: Task, setting: Setting) -> Method:
  """Builds FedProx, mu = hparams['prox']; 0 is FedAvg."""

  def pull(params, received, device):
    gap = jax.tree.map(jnp.subtract, params, received)
    return device.hparams['prox'] / 2 * optax.tree.norm(gap, squared=True)

  return fedavg(task, setting)._replace(client=local_sgd(task, penalty=pull))
