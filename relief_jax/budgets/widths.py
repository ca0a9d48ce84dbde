"""Cuts narrower models: from kept units to elements of the parameters.

A method of width says which units of every layer a device keeps. The elements
of its sub-model are computed here for all methods: an element of a weight from
unit u to unit v is contained where both are kept, so that adjacent
layers agree. A model says where its units are by its `task.Widths`.
"""

import math

import jax
import jax.numpy as jnp

from relief_jax import costs
from relief_jax.budgets.greedy import SLACK
from relief_jax.errors import InputError
from relief_jax.task import CostOverride, Plan, Task, Widths, Work
from relief_jax.types import Array, PyTree


def rolling(widths: Widths, share: Array, start: Array) -> list[Array]:
  """Takes `ceil(share U)` neighbouring units of each hidden layer, all classes.

  Args:
    widths: of the model.
    share: [] in (0, 1].
    start: [] int32, the first unit that is kept; the window wraps around.

  Returns:
    [L] of [U] bool.
  """
  *hidden, classes = widths.sizes
  keep = [
    jnp.mod(jnp.arange(size) - start, size) < jnp.ceil(share * size)
    for size in hidden
  ]
  return keep + [jnp.ones(classes, bool)]


def drawn(widths: Widths, key: Array, share: Array, exact: bool) -> list[Array]:
  """Draws units of each hidden layer at random, and takes all classes.

  Server and device derive the same from the same key, so no mask is sent.

  Args:
    widths: of the model.
    key: of the round, the device and this purpose.
    share: [] in [0, 1], probability of a unit.
    exact: keep `floor(share U)` units of every layer, at least one.

  Returns:
    [L] of [U] bool.
  """
  *hidden, classes = widths.sizes
  keep = []
  for layer, size in enumerate(hidden):
    draw = jax.random.uniform(jax.random.fold_in(key, layer), (size,))
    if exact:
      # A share that was computed as k / U may lie just below it.
      count = jnp.maximum(jnp.floor(share * size * (1 + 1e-6)), 1.0)
      keep.append(jnp.argsort(jnp.argsort(draw)) < count)
    else:
      keep.append(draw < share)
  return keep + [jnp.ones(classes, bool)]


def elements(widths: Widths, params: PyTree, keep: list[Array]) -> PyTree:
  """Marks the elements of the parameters that belong to kept units, P bool.

  Args:
    widths: of the model.
    params: P, for the shapes.
    keep: [L] of [U] bool.
  """

  def leaf(axes, value):
    mask = jnp.ones(value.shape, bool)
    for i, (layer, copies) in enumerate(axes.units):
      if layer is not None:
        shape = [1] * value.ndim
        shape[i] = value.shape[i]
        mask &= jnp.tile(keep[layer], copies).reshape(shape)
    return mask

  return jax.tree.map(leaf, widths.axes, params)


def scaled(widths: Widths, mask: PyTree, factor: Array):
  """Scales hidden activations of the masked model by `factor`: (P) -> P.

  Weights and biases of a layer are scaled in place of its activations, which
  is the same where the activation function is ReLU.

  Args:
    widths: of the model.
    mask: from `elements`.
    factor: [] of every hidden layer.
  """
  last = len(widths.sizes) - 1

  def view(params):
    def leaf(axes, value, contained):
      value = value if axes.output == last else value * factor
      return jnp.where(contained, value, 0.0)

    return jax.tree.map(leaf, widths.axes, params, mask)

  return view


def cut(
  widths: Widths, params: PyTree, share: float, start: Array, factor: float
) -> PyTree:
  """Cuts a narrower model of neighbouring units out, arrays of its own size.

  It computes what `scaled` does with the elements of `rolling`, in the time of
  the smaller arrays.

  Args:
    widths: of the model.
    params: P.
    share: in (0, 1], static.
    start: [] int32, the first unit that is kept.
    factor: of hidden activations.
  """
  *hidden, classes = widths.sizes
  last = len(hidden)
  kept = [
    jnp.mod(start + jnp.arange(math.ceil(share * size)), size)
    for size in hidden
  ]

  def leaf(axes, value):
    for i, (layer, copies) in enumerate(axes.units):
      if layer is None or layer == last:
        continue
      size = hidden[layer]
      at = jnp.arange(copies)[:, None] * size + kept[layer][None]
      value = jnp.take(value, at.ravel(), axis=i)
    return value if axes.output == last else value * factor

  return jax.tree.map(leaf, widths.axes, params)


def counts(keep: list[Array]) -> list[Array]:
  """Counts the units kept in each layer, [L] of [] float32."""
  return [k.sum().astype(jnp.float32) for k in keep]


def sizes(axes: PyTree, shapes: PyTree, kept) -> PyTree:
  """Counts the elements of every parameter in kept units, P of [].

  Args:
    axes: P of Axes.
    shapes: P of anything with a shape.
    kept: [L] numbers of units, traced or not.
  """

  def leaf(axes, value):
    return math.prod(
      value.shape[i] if layer is None else kept[layer] * copies
      for i, (layer, copies) in enumerate(axes.units)
    )

  return jax.tree.map(leaf, axes, shapes)


def required(task: Task, method: str) -> Widths:
  """Gives the model's units.

  Raises:
    InputError: it has no narrower form.
  """
  if task.widths is None:
    raise InputError(
      f'{method!r} with a model that declares no `Widths` (units to leave out)',
      'one whose layers are all trained, and whose modalities are summed',
      'set --config.backbone=cnn --config.model.fusion=concat',
    )
  return task.widths


def largest(work: Work, plan: Plan, budget: Array) -> Array:
  """Finds the widest of several sub-models that fits each device's budget.

  Args:
    work: [levels] of every field, the widest first.
    plan: what runs and trains where all fits.
    budget: [K] FLOPs per sample.

  Returns:
    [K] int32, the number of sub-models where none fits.
  """

  def one(run, trained, budget):
    cost = jax.vmap(costs.step_flops, (0, None, None))(work, run, trained)
    return jnp.argmax(jnp.append(cost <= budget * (1 + SLACK), True))

  return jax.vmap(one)(plan.run, plan.trained, budget)


def narrow(plan: Plan, fits: Array, client_args: PyTree, work: Work) -> Plan:
  """Narrows the plan to sub-models; a device that affords none sits out.

  Args:
    plan: of whole models.
    fits: [K] bool, a sub-model fits.
    client_args: [K] of every leaf, of the sub-models.
    work: [K] of every field, of the sub-models.
  """
  fits = fits[:, None]
  return Plan(
    run=plan.run & fits,
    trained=plan.trained & fits,
    counted=jnp.where(fits, plan.counted, 0.0),
    client_args=client_args,
    cost=CostOverride(work=work),
  )
