"""SCAFFOLD (Karimireddy et al., 2020, https://arxiv.org/abs/1910.06378).

Devices drift towards their own data. Each keeps a control variate c_i, the
server c, their mean over all devices; a local step is corrected by them:

    y_i <- y_i - eta (g_i(y_i) - c_i + c)          K times, from y_i = x
    c_i+ = c_i - c + mean of the corrected gradients      (option II)
    x <- x + mean of (y_i - x),    c <- c + sum of (c_i+ - c_i) / N

The mean of the corrected gradients is (x - y_i) / (K eta) of the paper where
the local optimiser is plain SGD (`hparams.client_momentum=0`), and what is
meant where it is not. Variates are as large as the model: c comes down and the
change of c_i goes up, and both are charged.

    relief run fedavg --config.method=examples/scaffold.py:scaffold \\
        --config.hparams.client_momentum=0
"""

import jax
import jax.numpy as jnp
import optax

from relief_jax import costs, tree
from relief_jax.algorithms.fedavg import fedavg
from relief_jax.clients.device import Received, Update
from relief_jax.rounds import accounting
from relief_jax.rounds.method import Method, Traits
from relief_jax.settings import Setting
from relief_jax.types import CostOverride, Task


def scaffold(task: Task, setting: Setting) -> Method:
  """Builds SCAFFOLD; with all variates at zero it is FedAvg."""
  base = fedavg(task, setting)

  def plan(server, round):
    found = base.plan(server, round)
    down = accounting.received(task, round.fleet, found)
    size = 4.0 * task.work.size
    return found._replace(
      cost=CostOverride(
        download=costs.total(down, size),
        upload=costs.total(found.trained, size),
      )
    )

  def client(received, device):
    x, c, c_i = received.params, received.extra, device.memory
    correction = jax.tree.map(jnp.subtract, c, c_i)
    loss = device.loss(task)

    def corrected(y, step):
      # <c - c_i, y>: its gradient is the correction, its value no loss.
      drift = optax.tree.vdot(correction, y)
      return loss(y, step) + drift - jax.lax.stop_gradient(drift)

    done = device.train(x, corrected, device.mask, lambda gradient, _: gradient)
    mean = jax.tree.map(lambda g: g / device.steps, done.observed)
    fresh = jax.tree.map(lambda a, b, g: a - b + g, c_i, c, mean)
    fresh = tree.select(device.mask, fresh, c_i)
    return Update(
      delta=done.delta,
      weight=device.weight,
      mask=device.mask,
      loss=done.loss,
      sums=jax.tree.map(jnp.subtract, fresh, c_i),
      memory=fresh,
      opt_state=done.opt_state,
    )

  def server(state, mean, round):
    moved = jax.tree.map(
      lambda c, change: c + change / setting.clients, state.memory, mean.sums
    )
    return base.server(state._replace(memory=moved), mean, round)

  def zeros(params):
    return jax.tree.map(jnp.zeros_like, params)

  return base._replace(
    plan=plan,
    client=client,
    server=server,
    init=zeros,
    client_init=zeros,
    send=lambda server: Received(server.params, server.memory),
    traits=Traits(sums=True),
  )
