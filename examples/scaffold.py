"""SCAFFOLD (Karimireddy et al., 2020, https://arxiv.org/abs/1910.06378).

Devices drift towards their own data. Each keeps a control variate c_i, the
server c, their mean over all N devices; a local step is corrected by them:

    y_i <- y_i - eta (g_i(y_i) - c_i + c)            K times, from y_i = x
    c_i+ = c_i - c + mean of the K corrected gradients          (option II)
    x <- x + eta_g mean_S (y_i - x)
    c <- c + 1 / N  sum_S (c_i+ - c_i)

The mean of the corrected gradients is the paper's (x - y_i) / (K eta) where the
local optimiser is plain SGD (`hparams.client_momentum=0`), and what is meant
where it is not. **Ours**: N and both means are of those who can train a block,
with their weights; where every device has every sensor, or with `fill=input`,
these are all. *Bytes*: variates are as large as what is trained; c comes down
and the change of c_i goes up, both in float32 whatever the codec.

    relief run --config=fedavg --workdir=runs/scaffold \\
        --config.method=examples/scaffold.py:scaffold \\
        --config.hparams.client_momentum=0
"""

import jax
import jax.numpy as jnp
import optax

from relief_jax import blocks, costs, tree
from relief_jax.algorithms.fedavg import fedavg
from relief_jax.clients.device import Received
from relief_jax.clients.work import local_sgd
from relief_jax.rounds import frame
from relief_jax.rounds.method import Method, Traits
from relief_jax.settings import Setting
from relief_jax.task import CostOverride, Task


def scaffold(task: Task, setting: Setting) -> Method:
  """Builds SCAFFOLD; where all variates are zero it averages as FedAvg does."""
  base, modality = fedavg(task, setting), task.blocks.modality

  def plan(server, round):
    found = base.plan(server, round)
    size = costs.total(found.trained, 4.0 * task.work.size)
    return found._replace(
      counted=found.trained.astype(jnp.float32),
      cost=CostOverride(download=size, upload=size),
    )

  def corrected(received, device):
    x, loss = received.params, device.loss(task)
    right = jax.tree.map(
      jnp.subtract, received.extra, device.client_state
    )  # c - c_i

    def objective(y, step):
      # The gradient of <c - c_i, y - x> is the correction.
      moved = jax.tree.map(jnp.subtract, y, x)
      return loss(y, step) + optax.tree.vdot(right, moved)

    return objective

  train = local_sgd(
    task, objective=corrected, observe=lambda gradient, _: gradient
  )

  def client(received, device):
    update, c, c_i = (
      train(received, device),
      received.extra,
      device.client_state,
    )
    mean = jax.tree.map(lambda g: g / device.steps, update.rows)
    fresh = jax.tree.map(lambda c, c_i, g: c_i - c + g, c, c_i, mean)
    fresh = tree.select(update.mask, fresh, c_i)
    change = jax.tree.map(jnp.subtract, fresh, c_i)
    weight = tree.broadcast_groups(task.groups, device.weight)
    return update._replace(
      rows=(), sums=tree.scale(weight, change), client_state=fresh
    )

  def server(state, mean, round):
    every = round.everyone
    _, reach = blocks.reach(every, modality, setting.fill == 'input')
    weight = frame.weights(setting, every, every.samples > 0)
    total = tree.broadcast_groups(
      task.groups, costs.total(reach.T, weight)
    )  # N
    change = tree.divide(mean.sums, total)
    c = jax.tree.map(jnp.add, state.method_state, change)
    return base.server(state._replace(method_state=c), mean, round)

  def zeros(params):
    return jax.tree.map(jnp.zeros_like, params)

  return base._replace(
    plan=plan,
    client=client,
    server=server,
    init=zeros,
    client_init=zeros,
    send=lambda server: Received(server.params, server.method_state),
    traits=Traits(sums=True),
  )
