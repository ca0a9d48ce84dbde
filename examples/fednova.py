"""FedNova (Wang et al., 2020, https://arxiv.org/abs/2007.07481).

Devices with more windows take more local steps tau_i, and FedAvg then minimises
another objective than the one that its weights p_i say. Normalised averaging
divides every update by what its device's steps add up to:

    x <- x + tau_eff sum_i p_i (y_i - x) / tau_i,    tau_eff = sum_i p_i tau_i

With local momentum rho, which weighs early gradients more, tau_i stands for
the paper's |a_i|_1 = (tau_i - rho (1 - rho^tau_i) / (1 - rho)) / (1 - rho).
Steps differ with whole local epochs (`local_epochs`), or where a straggler
takes fewer (`online.pace.late=partial`); else it is FedAvg. tau_eff is over
those who trained a block. *Bytes*: four more up, for tau_i; it is in the sum.

    relief run --config=fedavg --workdir=runs/fednova \\
        --config.method=examples/fednova.py:fednova \\
        --config.local_epochs=1 --config.weight=samples
"""

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.algorithms.fedavg import fedavg
from relief_jax.errors import InputError
from relief_jax.rounds import legality
from relief_jax.rounds.method import Method, Traits
from relief_jax.settings import Setting
from relief_jax.task import CostOverride, Task
from relief_jax.types import Array


def length(steps: Array, momentum: Array) -> Array:
  """Computes |a_i|_1, the sum of the weights of a device's gradients, []."""
  left = momentum * (1 - momentum**steps) / (1 - momentum)
  return (steps - left) / (1 - momentum)


def fednova(task: Task, setting: Setting) -> Method:
  """Builds FedNova; where all take as many steps it is FedAvg.

  Raises:
    InputError: momentum that goes on from round to round, or another local
      optimiser.
  """
  legality.local(
    setting, 'fednova', 'weighs the gradients that SGD with momentum adds up'
  )
  if setting.keep_client_state:
    raise InputError(
      'config.keep_client_state=True for FedNova',
      'False: its weights of gradients are of momentum that starts at zero',
      'set --config.keep_client_state=False',
    )
  base = fedavg(task, setting)

  def plan(server, round):
    size = jnp.full(round.active.shape, 4.0)
    return base.plan(server, round)._replace(cost=CostOverride(upload=size))

  def client(received, device):
    update = base.client(received, device)
    tau = length(device.steps, device.hparams['client_momentum'])
    return update._replace(
      delta=jax.tree.map(lambda u: u / tau, update.delta),
      sums=tau * device.weight * device.trained,
    )

  def server(state, mean, round):
    effective = tree.divide(mean.sums, mean.weight)  # [G]
    delta = tree.scale(
      tree.broadcast_groups(task.groups, effective), mean.delta
    )
    return base.server(state, mean._replace(delta=delta), round)

  return base._replace(
    plan=plan, client=client, server=server, traits=Traits(sums=True)
  )
