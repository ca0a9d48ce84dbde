"""Draws the windows of a client's local steps."""

import jax
import jax.numpy as jnp

from relief_jax.clients import training
from relief_jax.clients.records import Steps
from relief_jax.settings import HParams, Setting
from relief_jax.types import Array, Fleet


def client_keys(key: Array, fleet: Fleet) -> Array:
  """Gives one key per client, tied to its id and not to its place, [K]."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, fleet.id)


def draw_steps(
  key: Array, windows: Array, count: Array, steps: int, batch: int
) -> tuple[Array, Array]:
  """Draws the windows of a client's local steps, with replacement.

  Args:
    key: of the client, the round and this purpose.
    windows: [W] int32, the client's windows.
    count: [] how many of them are real.
    steps: T.
    batch: B.

  Returns:
    rows [T, B] int32 and weights [T, B] float32, all 1.
  """
  at = jax.random.randint(key, (steps, batch), 0, jnp.maximum(count, 1))
  return windows[at], jnp.ones(at.shape, jnp.float32)


def draw_epochs(
  key: Array, windows: Array, count: Array, epochs: int, batch: int
) -> tuple[Array, Array]:
  """Draws the windows of a client's local steps over shuffled epochs.

  The number of steps is the largest client's; a smaller client's last steps
  hold only padding (weight 0) and are skipped.

  Args:
    key: of the client, the round and this purpose.
    windows: [W] int32, the client's windows.
    count: [] how many of them are real.
    epochs: E.
    batch: B.

  Returns:
    rows [T, B] int32 and weights [T, B] float32, T = E * ceil(W / B).
  """
  width = windows.shape[0]
  steps = -(-width // batch)
  real = jnp.arange(width) < count

  def epoch(key):
    order = jnp.argsort(jnp.where(real, jax.random.uniform(key, (width,)), 2.0))
    pad = (0, steps * batch - width)
    return (
      # With windows of its own: another's may be broken, and 0 * NaN is NaN.
      jnp.pad(windows[order], pad, mode='edge').reshape(steps, batch),
      jnp.pad(real[order].astype(jnp.float32), pad).reshape(steps, batch),
    )

  drawn = jax.vmap(epoch)(jax.random.split(key, epochs))
  return jax.tree.map(lambda v: v.reshape(-1, batch), drawn)


def in_order(windows: Array, count: Array, batch: int) -> tuple[Array, Array]:
  """Lists all windows of a client in batches, each once.

  Args:
    windows: [W] int32, the client's windows.
    count: [] how many of them are real.
    batch: B.

  Returns:
    rows [S, B] int32 and weights [S, B] float32, 0 for padding, with
    S = ceil(W / B).
  """
  real = (jnp.arange(windows.size) < count).astype(jnp.float32)
  pad = (0, -windows.size % batch)
  return (
    jnp.pad(windows, pad, mode='edge').reshape(-1, batch),
    jnp.pad(real, pad).reshape(-1, batch),
  )


def local_steps(
  key: Array,
  setting: Setting,
  hparams: HParams,
  fleet: Fleet,
  windows: Array,
  run: Array,
) -> Steps:
  """Draws the local steps of one client, [T, ...].

  Args:
    key: of the round and this purpose; the client's own follows from its id.
    setting: of the round.
    hparams: traced hyperparameters.
    fleet: of one client, [] and [M].
    windows: [W] its windows.
    run: [M] bool, branches in the forward pass.
  """
  row_key, drop_key = (
    jax.random.fold_in(k, fleet.id) for k in jax.random.split(key)
  )
  if setting.epochs:
    row, weight = draw_epochs(
      row_key, windows, fleet.samples, setting.epochs, setting.batch
    )
  else:
    row, weight = draw_steps(
      row_key, windows, fleet.samples, setting.steps, setting.batch
    )
  kept = None
  if setting.dropout:
    kept = training.modality_dropout(
      drop_key, fleet.owned, hparams['dropout'], row.shape[0]
    )
  return steps_of(setting, fleet, run, row, weight, kept)


def steps_of(
  setting: Setting,
  fleet: Fleet,
  run: Array,
  row: Array,
  weight: Array,
  kept: Array | None = None,
) -> Steps:
  """Builds the steps of one client over given windows, [T, ...].

  Args:
    setting: of the round.
    fleet: of one client, [] and [M].
    run: [M] bool, branches in the forward pass.
    row: [T, B] int32, windows.
    weight: [T, B] float32, 0 for padding.
    kept: [T, M] bool, sensors that are real; None: those that it owns.
  """
  count = row.shape[0]
  if kept is None:
    kept = _repeat(fleet.owned, count)
  run = _repeat(run, count)
  shift = jax.tree.map(lambda v: _repeat(v, count), fleet.shift)
  if setting.fill == 'input':
    return Steps(row, weight, run, kept, shift)
  return Steps(row, weight, run & kept, None, shift)


def _repeat(value: Array, count: int) -> Array:
  """Repeats a value in all steps, [count, ...]."""
  return jnp.broadcast_to(value[None], (count, *value.shape))


def cut(steps: Steps, count: Array) -> Steps:
  """Keeps the first `count` [] real steps; the others hold only padding.

  With epochs a smaller client's padding lies between its real steps.
  """
  kept = jnp.cumsum((steps.weight > 0).any(-1)) <= count
  return steps._replace(weight=jnp.where(kept[:, None], steps.weight, 0.0))


def smaller(steps: Steps, size: Array) -> Steps:
  """Keeps the first `size` [] samples of every batch; the rest is padding."""
  kept = jnp.arange(steps.weight.shape[-1]) < size
  return steps._replace(weight=jnp.where(kept, steps.weight, 0.0))


def with_keys(key: Array, steps: Steps) -> Steps:
  """Gives each of T steps a key, for objectives that draw."""
  return steps._replace(key=jax.random.split(key, steps.row.shape[0]))
