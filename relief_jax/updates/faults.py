"""Injects Byzantine clients' updates, to test a mean with.

The faulty clients are drawn on the host and traced (`hparams['faulty']`). Means
that bear a few of them are in aggregation/robust.py.
"""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from relief_jax import tree
from relief_jax.settings import Faults
from relief_jax.types import Array, Fleet, PyTree
from relief_jax.updates import transform

# Purposes of keys: of the noise beside `link.UP` and `link.DOWN`, and of the
# draw beside those of `world.client_data`.
_NOISE, _DRAW = 2, 61


def draw(config: ml_collections.ConfigDict, fleet: Fleet) -> dict[str, Array]:
  """Draws the faulty clients, a traced value; {} where there are none.

  Args:
    config: of the run; its seed and `faults.share` of the clients with data.
    fleet: [N] clients.

  Returns:
    `faulty`, [N] float32, 1 for those who are.
  """
  if not config.faults.share:
    return {}
  real = np.flatnonzero(np.asarray(fleet.samples) > 0)
  rng = np.random.default_rng([config.seed, _DRAW])
  count = round(config.faults.share * len(real))
  faulty = np.zeros(fleet.samples.shape, np.float32)
  faulty[rng.choice(real, count, replace=False)] = 1
  return {'faulty': jnp.asarray(faulty)}


def inject_faults(faults: Faults) -> transform.Transform:
  """Replaces the updates of faulty clients, over what they trained."""

  def update(found, device, key):
    delta = tampered(
      faults, key, device.fleet.id, device.faulty, found.mask, found.delta
    )
    return found._replace(delta=delta)

  return transform.stateless(update)


def tampered(
  faults: Faults,
  key: Array,
  client: Array,
  faulty: Array,
  mask: PyTree,
  delta: PyTree,
) -> PyTree:
  """Computes the update that a client sends in place of its own, P.

  Args:
    faults: description of the faulty updates.
    key: of the round's links.
    client: [] its id.
    faulty: [] above 0 for a faulty one.
    mask: prefix tree of P, bool, what it trained.
    delta: P, its update; zeros elsewhere.
  """
  if faults.kind == 'nan':
    sent = jax.tree.map(lambda u: jnp.full_like(u, jnp.nan), delta)
  elif faults.kind == 'flip':
    sent = jax.tree.map(lambda u: -faults.scale * u, delta)
  else:
    own = jax.random.fold_in(jax.random.fold_in(key, _NOISE), client)
    drawn = optax.tree_utils.tree_random_like(own, delta)
    nothing = jax.tree.map(jnp.zeros_like, delta)
    drawn = tree.select(mask, drawn, nothing)
    length = faults.scale * optax.tree.norm(delta)
    length /= jnp.maximum(optax.tree.norm(drawn), 1e-30)
    sent = jax.tree.map(lambda u: length * u, drawn)
  chosen = jax.tree.map(lambda m: m & (faulty > 0), mask)
  return tree.select(chosen, sent, delta)
