"""Adds Gaussian noise to updates, on the devices or on the server.

    device   u_n + z C xi_n                  every device, what it trained
    server   (sum_n u_n + z C xi) / n_g      once, of every block g

With u_n clipped to the norm C (`hparams['clip_norm']`), z the noise multiplier
(`hparams['noise_multiplier']`) and xi standard normal numbers: the Gaussian
mechanism on clients, as in DP-FedAvg (McMahan et al., 2018,
https://arxiv.org/abs/1710.06963). Blocks differ in n_g, the devices that count
for them, so a rare sensor's blocks bear the most noise (**ours**: one C over
all blocks of a device, one z for all of them). What it is worth is computed in
runs/privacy.py; what is refused in rounds/privacy.py.
"""

import jax
import jax.numpy as jnp
import optax

from relief_jax import tree
from relief_jax.settings import HParams
from relief_jax.task import Task
from relief_jax.types import Array, PyTree
from relief_jax.updates import transform

# Purposes of a round's link key beside `link.UP`, `link.DOWN` and the faults'.
_DEVICE, _SERVER = 3, 4


def deviation(hparams: HParams) -> Array:
  """Computes the noise's standard deviation z C, [].

  Args:
    hparams: traced hyperparameters.
  """
  return hparams['noise_multiplier'] * hparams['clip_norm']


def add_noise() -> transform.Transform:
  """Adds a device's own noise to what it trained."""

  def update(found, device, key):
    key = jax.random.fold_in(jax.random.fold_in(key, _DEVICE), device.fleet.id)
    size = deviation(device.hparams)
    drawn = optax.tree_utils.tree_random_like(key, found.delta)
    noisy = jax.tree.map(lambda u, xi: u + size * xi, found.delta, drawn)
    nothing = jax.tree.map(jnp.zeros_like, found.delta)
    return found._replace(delta=tree.select(found.mask, noisy, nothing))

  return transform.stateless(update)


def on_mean(
  key: Array,
  hparams: HParams,
  task: Task,
  delta: PyTree,
  touched: PyTree,
  weight: Array,
) -> PyTree:
  """Adds the server's noise to the sums behind a mean, P.

  Blocks that nobody trained stay as they are.

  Args:
    key: of the round's messages.
    hparams: traced hyperparameters.
    task: the model.
    delta: P, the mean of clipped updates.
    touched: prefix tree of P, bool: some client trained it.
    weight: [K, G] of clients in it; the largest bounds a client's share.
  """
  counted = jnp.maximum(weight.sum(0), 1e-30)
  each = deviation(hparams) * jnp.max(weight, initial=0.0) / counted
  drawn = optax.tree_utils.tree_random_like(
    jax.random.fold_in(key, _SERVER), delta
  )
  drawn = tree.scale(tree.broadcast_groups(task.groups, each), drawn)
  noisy = jax.tree.map(jnp.add, delta, drawn)
  return tree.select(touched, noisy, delta)
