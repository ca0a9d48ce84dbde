"""Applies the mean update on the server, for methods to call."""

import jax
import jax.numpy as jnp
import optax

from relief_jax import tree
from relief_jax.aggregation.mean import Mean
from relief_jax.rounds.method import Round, Server
from relief_jax.settings import Setting
from relief_jax.types import PyTree


def server_step(setting: Setting):
  """Builds the step of the server's optimiser on the mean update.

  Parameters that no client trained keep their bits, and devices keep what they
  have.

  Args:
    setting: names the optimiser.
  """

  def server(state: Server, mean: Mean, round: Round) -> tuple[Server, PyTree]:
    step, opt_state = setting.server_tx(round.hparams).update(
      jax.tree.map(jnp.negative, mean.delta), state.opt_state, state.params
    )
    params = tree.select(
      mean.touched, optax.apply_updates(state.params, step), state.params
    )
    return Server(params, opt_state, state.method_state), round.clients

  return server
