"""Clients that diverge or lie: what is done about one, and how to make some.

    train -> (tamper) -> finite? -> clip -> link -> mean

What is done about one client's update is here and looks at it alone; means
that bear lies of a few are in aggregation/robust.py. Everything is off by
default and then not in the program.

*Drop.* An update counts as not finite where the loss, a weight that the device
found, or the update's squared norm in float32 is not (numbers beyond 1e19 are
as useless to a mean as NaN). Its sender is charged as always, but the server
goes on as if it had sat the round out: it counts nowhere, does not dilute
either, and what it keeps (momentum, the memory of its link) stays as it was.
**Ours.**

*Clip* to a norm: as in differential privacy (McMahan et al., 2018,
https://arxiv.org/abs/1710.06963, there against single clients' influence).
"""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from relief_jax import tree
from relief_jax.errors import InputError
from relief_jax.settings import Faults, Guard
from relief_jax.types import Array, Fleet, PyTree

# Purposes of keys: of the noise beside `link.UP` and `link.DOWN`, and of the
# draw beside those of `deal`.
_NOISE, _DRAW = 2, 61


def draw(config: ml_collections.ConfigDict, fleet: Fleet) -> dict[str, Array]:
  """The traced value that tells faulty clients, {} where there are none.

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


def refuse(found: Guard, method: str) -> None:
  """For methods in which no server averages updates.

  Raises:
    InputError: something is not as by default.
  """
  for key, on, usual in (
    ('nonfinite=drop', found.drop, 'nonfinite=stop'),
    ('hparams.clip_norm', found.clip, 'hparams.clip_norm=0'),
    (f'mean={found.mean}', found.robust, 'mean=mean'),
    ('faults.share', found.faults.kind, 'faults.share=0'),
  ):
    if on:
      raise InputError(
        f'config.{key} for {method!r}',
        'a method whose server averages updates of clients',
        f'set --config.{usual}',
      )


def tamper(
  faults: Faults,
  key: Array,
  client: Array,
  faulty: Array,
  mask: PyTree,
  delta: PyTree,
) -> PyTree:
  """What a client sends, P: a lie where it is faulty, over what it trained.

  Args:
    faults: of the guard.
    key: of the round's links.
    client: [] its id.
    faulty: [] above 0 for who lies.
    mask: prefix tree of P, bool, what it trained.
    delta: P, its update; zeros elsewhere.
  """
  if faults.kind == 'nan':
    lie = jax.tree.map(lambda u: jnp.full_like(u, jnp.nan), delta)
  elif faults.kind == 'flip':
    lie = jax.tree.map(lambda u: -faults.scale * u, delta)
  else:
    own = jax.random.fold_in(jax.random.fold_in(key, _NOISE), client)
    drawn = optax.tree_utils.tree_random_like(own, delta)
    nothing = jax.tree.map(jnp.zeros_like, delta)
    drawn = tree.select(mask, drawn, nothing)
    length = faults.scale * optax.tree.norm(delta)
    length /= jnp.maximum(optax.tree.norm(drawn), 1e-30)
    lie = jax.tree.map(lambda u: length * u, drawn)
  chosen = jax.tree.map(lambda m: m & (faulty > 0), mask)
  return tree.select(chosen, lie, delta)


def finite(*values: PyTree) -> Array:
  """Whether the squared norm of each tree is a finite number, [] bool.

  >>> bool(finite({'w': jnp.ones(2)}, jnp.zeros(()))), bool(finite(jnp.inf))
  (True, False)
  """
  return jnp.isfinite(jnp.stack([optax.tree.norm(v) for v in values])).all()


def clip(delta: PyTree, most: Array) -> PyTree:
  """An update scaled to a norm of at most `most`; a shorter one is unchanged.

  >>> [round(float(v), 4) for v in clip({'w': jnp.array([3.0, 4.0])}, 1.0)['w']]
  [0.6, 0.8]
  """
  factor = most / jnp.maximum(optax.tree.norm(delta), most)
  return jax.tree.map(lambda u: factor * u, delta)
