"""Treats one client's update alone: drops it, or clips its norm.

*Drop.* An update counts as not finite where the loss, a weight that the device
computed, or the update's squared norm in float32 is not (numbers beyond 1e19
are as useless to a mean as NaN). Its sender is charged as always, but the
server goes on as if it had sat the round out: it counts nowhere, does not
dilute either, and its kept state (momentum, the error feedback of its link)
stays as it was. **Ours.**

*Clip* to a norm: as in differential privacy (McMahan et al., 2018,
https://arxiv.org/abs/1710.06963, there against single clients' influence).
"""

import jax
import jax.numpy as jnp
import optax

from relief_jax.types import Array, PyTree
from relief_jax.updates import transform


def mark_nonfinite() -> transform.Transform:
  """Marks whether loss, weight and update are finite, `Update.finite`."""
  return transform.stateless(
    lambda update, device, key: update._replace(
      finite=finite(update.loss, update.weight, update.delta)
    )
  )


def clip_update() -> transform.Transform:
  """Scales updates down to the norm `hparams['clip_norm']`."""
  return transform.stateless(
    lambda update, device, key: update._replace(
      delta=clip(update.delta, device.hparams['clip_norm'])
    )
  )


def finite(*values: PyTree) -> Array:
  """Tells whether the squared norm of each tree is finite, [] bool.

  >>> bool(finite({'w': jnp.ones(2)}, jnp.zeros(()))), bool(finite(jnp.inf))
  (True, False)
  """
  return jnp.isfinite(jnp.stack([optax.tree.norm(v) for v in values])).all()


def clip(delta: PyTree, most: Array | float) -> PyTree:
  """Scales an update to a norm of at most `most`; a shorter one is unchanged.

  >>> [round(float(v), 4) for v in clip({'w': jnp.array([3.0, 4.0])}, 1.0)['w']]
  [0.6, 0.8]
  """
  factor = most / jnp.maximum(optax.tree.norm(delta), most)
  return jax.tree.map(lambda u: factor * u, delta)
