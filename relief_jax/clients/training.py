"""Trains one client: forward with real skipping, gated optimiser."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from relief_jax import tree
from relief_jax.clients import history, sensor_faults
from relief_jax.clients.records import Batch, Gate, Output, Steps
from relief_jax.task import Skip, Task
from relief_jax.types import Array, PyTree, Shift


def _encode(task: Task, params, frozen, batch: Batch, gate: Gate, i: int):
  """Encodes modality i; nothing is computed where it does not run."""
  owners = task.blocks.layers[i]
  # Layers are frozen from the input side; only cuts between two groups occur.
  cuts = [
    c
    for c in range(task.cuts)
    if owners and (c == 0 or owners[c] != owners[c - 1])
  ] + [task.cuts]

  # A branch of its own: fused into the first layer, the gather of windows is
  # several times slower on XLA:CPU.
  inputs = partial(inputs_of, task, batch, gate, i, True)
  x = jax.lax.cond(gate.run[i], inputs, lambda: tree.zeros_like_output(inputs))
  if not task.cuts:  # the bank holds features: there is no layer to skip
    return x

  def branch(cut):
    return lambda: task.encode(params, frozen, i, x, cut)

  zeros = tree.zeros_like_output(branch(task.cuts))
  choice = jnp.int32(len(cuts))  # frozen
  for k in reversed(range(len(cuts) - 1)):
    choice = jnp.where(gate.train[owners[cuts[k]]], k + 1, choice)
  return jax.lax.switch(
    jnp.where(gate.run[i], choice, 0),
    [lambda: zeros] + [branch(c) for c in cuts],
  )


def _encode_masked(
  task: Task, params, frozen, batch: Batch, gate: Gate, i: int
):
  """Encodes modality i without branches; the optimiser gates frozen blocks.

  Also the input is masked: no number of an absent sensor, not even a NaN, has
  a part in the gradient.
  """
  x = tree.masked(gate.run[i], inputs_of(task, batch, gate, i, False))
  cut = 0 if task.blocks.layers[i] else task.cuts
  h = task.encode(params, frozen, i, x, cut)
  return tree.masked(gate.run[i], h)


def inputs_of(
  task: Task, batch: Batch, gate: Gate, i: int, branch: bool
) -> Array:
  """Takes the windows of modality i, as its sensor delivers them, [B, ...].

  Behind those before them, where the model looks back (`Task.past`).

  Args:
    task: the model.
    batch: rows of the bank.
    gate: what is sensed.
    i: number of the modality.
    branch: as in `forward`.
  """
  name = task.modalities[i]
  shift, gone = batch.shift, None
  if shift is not None and shift.lost is not None:
    gone = partial(_lost_rows, shift, i)

  def window(row):
    x = batch.bank.x[name][row]
    if shift is None:
      return x
    return sensor_faults.apply(shift, i, x, row, branch)

  x = history.read(batch.bank, batch.row, task.past, window, gone)
  if gate.sensed is not None:
    sensed = gate.sensed[i]
    lost = _lost(batch, i)
    if lost is not None:
      sensed &= ~tree.along(lost, x)
    x = jnp.where(sensed, x, batch.bank.fill[name])
  return batch.alter(i, x) if batch.alter else x


def _lost(batch: Batch, i: int) -> Array | None:
  """Marks windows without modality i, [B] bool; None for none."""
  return batch.shift and sensor_faults.lost(batch.shift, i, batch.row)


def _lost_rows(shift: Shift, i: int, row: Array) -> Array:
  """Marks windows without modality i, [B] bool, where some are lost."""
  found = sensor_faults.lost(shift, i, row)
  assert found is not None
  return found


def _zeroed(batch: Batch, gate: Gate, i: int, features: PyTree) -> PyTree:
  """Zeroes the features of lost windows, where these are not filled."""
  lost = _lost(batch, i)
  if gate.sensed is not None or lost is None:
    return features
  return tree.masked(~lost, features)


def forward(
  task: Task,
  params,
  frozen,
  batch: Batch,
  gate: Gate,
  branch: bool = True,
  present: tuple[int, ...] | None = None,
  length: int | None = None,
) -> Output:
  """Computes the model's features and class scores for one client.

  Args:
    task: the model.
    params: P.
    frozen: parameters that never train.
    batch: rows of the bank.
    gate: what this client runs, senses and trains.
    branch: an absent modality's encoder is skipped, an untrained one has no
      backward pass. False under a vmap over clients, which would run every
      branch: everything runs once and is masked.
    present: numbers of the modalities that are in the program (static); the
      caller knows that no other one runs. None: all.
    length: number of modalities that run, where the caller knows it (static).
  """
  encode = _encode if branch else _encode_masked
  features = {
    name: _zeroed(batch, gate, i, encode(task, params, frozen, batch, gate, i))
    for i, name in enumerate(task.modalities)
    if present is None or i in present
  }
  run = gate.run
  if batch.mend:
    features, run = batch.mend(features, run)
  more = (Skip(gate.train, length) if branch else None,) if task.skips else ()
  given = params, frozen, features, run, *more
  if task.experts is None:
    return Output(features, task.fuse(*given))
  return Output(features, *task.experts.fuse(*given))


def logits(*args, **kwargs) -> Array:
  """Computes the class scores of `forward`, [B, C]; its arguments."""
  return forward(*args, **kwargs).logits


def cross_entropy(scores: Array, y: Array, weight: Array) -> Array:
  """Computes weighted mean cross-entropy, []; 0 when no sample counts.

  Args:
    scores: [B, C] logits.
    y: [B] int32 classes.
    weight: [B], 0 for padding.
  """
  losses = optax.softmax_cross_entropy_with_integer_labels(scores, y)
  return tree.scale(weight, losses).sum() / jnp.maximum(weight.sum(), 1e-9)


def criterion(task: Task) -> Callable[[Array, Array, Array], Array]:
  """Gives the training loss of a model, (logits, y, weight) -> []."""
  return task.criterion or cross_entropy


def one_of(
  index: Array,
  losses: Sequence[Callable[[PyTree], Array]],
  params: PyTree,
) -> Array:
  """Computes one of several losses, its gradient inside the branch, [].

  A `lax.switch` keeps what the backward passes of all its branches read; here
  each branch makes its gradient at once and keeps nothing else.

  Args:
    index: [] int32, of the loss.
    losses: params -> [].
    params: P.
  """

  @jax.custom_vjp
  def value(params):
    return jax.lax.switch(index, losses, params)

  def forward(params):
    return jax.lax.switch(index, list(map(jax.value_and_grad, losses)), params)

  def backward(grads, scale):
    return (jax.tree.map(lambda g: scale * g, grads),)

  value.defvjp(forward, backward)
  return value(params)


def modality_dropout(key: Array, owned: Array, rate: Array, steps: int):
  """Draws the modalities kept in each local step. **Ours.**

  Each owned modality is dropped with probability `rate`; where all would be
  dropped, one drawn at random stays. Devices with one modality keep it.

  Args:
    key: of the client and round.
    owned: [M] bool.
    rate: [] in [0, 1).
    steps: T.

  Returns:
    [T, M] bool, a subset of `owned` with at least one modality per step.
  """
  draw = jax.random.uniform(key, (steps, owned.size))
  draw = jnp.where(owned[None], draw, -1.0)
  best = draw == draw.max(-1, keepdims=True)
  return owned[None] & ((draw >= rate) | best)


class Local(NamedTuple):
  """Holds the outcome of local training.

  Attributes:
    delta: P, the change of the model.
    loss: [] mean over the steps with real samples.
    opt_state: of the local optimiser.
    observed: sums over the steps of what `observe` gave, or ().
  """

  delta: PyTree
  loss: Array
  opt_state: PyTree
  observed: PyTree = ()


def gated_step(
  tx: optax.GradientTransformation,
  params: PyTree,
  grads: PyTree,
  opt_state: PyTree,
  weight: PyTree,
) -> tuple[PyTree, PyTree, PyTree]:
  """Takes a step whose gradient *and* update are gated.

  So that neither clipping nor momentum nor weight decay moves a frozen block.

  Args:
    tx: the optimiser.
    params: P.
    grads: P, gated.
    opt_state: of the optimiser.
    weight: prefix tree of P, 1 or 0.

  Returns:
    P after the step, the optimiser's state, the update before its gate.
  """
  updates, opt_state = tx.update(grads, opt_state, params)
  params = optax.apply_updates(params, tree.scale(weight, updates))
  return params, opt_state, updates


def local_update(
  loss: Callable[[PyTree, Steps], Array],
  tx: optax.GradientTransformation,
  params: PyTree,
  mask: PyTree,
  steps: Steps,
  opt_state: PyTree | None = None,
  *,
  observe: Callable[[PyTree, PyTree], PyTree] | None = None,
  ragged: bool = False,
  branch: bool = True,
) -> Local:
  """Trains one client for T steps, each by `gated_step`.

  Args:
    loss: (params, one of the steps) -> [].
    tx: local optimiser; its state starts afresh unless given.
    params: P, the model received.
    mask: prefix tree of P, bool, what is trained.
    steps: T local steps.
    opt_state: kept on the device from an earlier round, or None.
    observe: (gated gradients P, updates P before their gate) -> pytree, summed
      over the steps that are taken.
    ragged: steps may hold nothing but padding; such a step is skipped and
      leaves model and optimiser as they were.
    branch: such a step costs nothing; False under a vmap over clients.
  """
  weight = jax.tree.map(lambda m: m.astype(jnp.float32), mask)
  if opt_state is None:
    opt_state = tx.init(params)
  sums: PyTree = ()
  if observe:
    sums = tree.zeros_like_output(observe, params, params)

  def train(carry, one):
    params, opt_state, sums = carry
    value, grads = jax.value_and_grad(loss)(params, one)
    grads = tree.scale(weight, grads)
    params, opt_state, updates = gated_step(
      tx, params, grads, opt_state, weight
    )
    if observe:
      sums = jax.tree.map(jnp.add, sums, observe(grads, updates))
    return (params, opt_state, sums), value

  def guarded(carry, one):
    return tree.choose(
      (one.weight > 0).any(),
      train,
      lambda carry, one: (carry, jnp.float32(0.0)),
      carry,
      one,
      branch=branch,
    )

  (local, opt_state, sums), values = jax.lax.scan(
    guarded if ragged else train, (params, opt_state, sums), steps
  )
  real = (steps.weight > 0).any(-1).sum()
  delta = jax.tree.map(jnp.subtract, local, params)
  return Local(delta, values.sum() / jnp.maximum(real, 1), opt_state, sums)
