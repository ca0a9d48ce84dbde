"""Trains every device alone: no server, no traffic (a lower bound, **ours**).

Every device keeps a model of its own, which is inherently [N, *P].
"""

import jax.numpy as jnp
import numpy as np

from relief_jax.algorithms import fedavg
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.rounds.personal import personal
from relief_jax.settings import Setting
from relief_jax.task import Task


@Facts(skips=True)
def local_only(task: Task, setting: Setting) -> Method:
  """Builds local training: FedAvg all of whose blocks are personal."""
  num = task.num_blocks
  method = fedavg.fedavg(task, setting._replace(fill='skip'))
  return personal(task, method, np.ones(num, bool))._replace(
    divergence=lambda method_state: jnp.full(num, jnp.nan)
  )
