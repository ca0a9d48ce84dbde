"""FedNova (Wang et al., 2020, https://arxiv.org/abs/2007.07481).

Devices with more windows take more local steps, and FedAvg then minimises
another objective than the one that its weights say. Normalised averaging
divides every update by its device's number of steps tau_i:

    x <- x + tau_eff sum_i p_i (y_i - x) / tau_i,    tau_eff = sum_i p_i tau_i

where p_i is the device's share of the weight. This is the form for plain SGD
(`hparams.client_momentum=0`); the paper has others for momentum and proximal
terms. Steps differ with whole local epochs (`local_epochs`), or where a
deadline cuts them (`online.pace.late=partial`); else it is FedAvg. Both sums
are over those who trained a block. tau_i is four bytes more per device.

    relief run fedavg --config.method=examples/fednova.py:fednova \\
        --config.local_epochs=1 --config.weight=samples \\
        --config.hparams.client_momentum=0
"""

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.algorithms.fedavg import fedavg
from relief_jax.rounds.method import Method, Traits
from relief_jax.settings import Setting
from relief_jax.types import CostOverride, Task


def fednova(task: Task, setting: Setting) -> Method:
  """Builds FedNova; where all take as many steps it is FedAvg."""
  base = fedavg(task, setting)

  def plan(server, round):
    found = base.plan(server, round)
    tau = jnp.full(round.active.shape, 4.0)
    return found._replace(cost=CostOverride(upload=tau))

  def client(received, device):
    update = base.client(received, device)
    tau = jnp.maximum(device.steps, 1).astype(jnp.float32)
    return update._replace(
      delta=jax.tree.map(lambda u: u / tau, update.delta),
      sums=device.weight * device.trained * tau,
    )

  def server(state, mean, round):
    tau = tree.divide(mean.sums, mean.weight)  # tau_eff of every block
    delta = tree.scale(tree.spread(task.groups, tau), mean.delta)
    return base.server(state, mean._replace(delta=delta), round)

  return base._replace(
    plan=plan, client=client, server=server, traits=Traits(sums=True)
  )
