"""FedProx (Li et al., 2020, https://arxiv.org/abs/1812.06127).

FedAvg with a pull to the received weights, (mu / 2) |theta_n - theta|^2, the
squared norm. Untrained groups do not move, so they add nothing.
"""

import jax
import jax.numpy as jnp
import optax

from relief_jax.algorithms import fedavg
from relief_jax.rounds import parallel
from relief_jax.settings import Setting
from relief_jax.types import Algorithm, Task


def fedprox(task: Task, setting: Setting) -> Algorithm:
  """FedProx with mu = hparams['prox']; mu = 0 is FedAvg. Grade: published."""

  def penalty(params, anchor):
    gap = jax.tree.map(jnp.subtract, params, anchor)
    return setting.hparams['prox'] / 2 * optax.tree.norm(gap, squared=True)

  recipe = fedavg.recipe(setting)._replace(penalty=penalty)
  return parallel.federated(task, setting, recipe)
