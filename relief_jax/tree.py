"""Computes with parameter trees whose weights are prefix trees of them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from relief_jax.types import Array, PyTree


def scale(weight: PyTree, tree: PyTree) -> PyTree:
  """Multiplies by a prefix tree of weights; weight 0 erases even a NaN.

  Args:
    weight: prefix tree of `tree` with non-negative scalars.
    tree: P.

  Returns:
    P.

  >>> tree = {'w': jnp.array(jnp.nan), 'b': jnp.ones(())}
  >>> [float(v) for v in jax.tree.leaves(scale({'w': 0.0, 'b': 2.0}, tree))]
  [2.0, 0.0]
  """

  def leaf(w, u):
    return jnp.where(w > 0, w * u, 0.0)

  return jax.tree.map(
    lambda w, t: jax.tree.map(lambda u: leaf(w, u), t), weight, tree
  )


def divide(tree: PyTree, weight: PyTree) -> PyTree:
  """Inverts `scale` for sums; 0 where nobody contributed."""
  inverse = jax.tree.map(lambda w: jnp.where(w > 0, 1 / w, 0.0), weight)
  return scale(inverse, tree)


def broadcast_groups(groups: PyTree, row: Array) -> PyTree:
  """Broadcasts a [G] row to a prefix tree: leaves get their group's entry."""
  return jax.tree.map(lambda g: row[g], groups)


def both(mask: PyTree, tree: PyTree) -> PyTree:
  """Intersects a prefix tree of bools and a tree P of bools: P."""
  return jax.tree.map(lambda m, t: jax.tree.map(lambda u: m & u, t), mask, tree)


def select(mask: PyTree, new: PyTree, old: PyTree) -> PyTree:
  """Selects `new` where the prefix tree is true, else the bits of `old`."""
  return jax.tree.map(
    lambda m, a, b: jax.tree.map(lambda u, v: jnp.where(m, u, v), a, b),
    mask,
    new,
    old,
  )


def masked(flag: Array, values: PyTree) -> PyTree:
  """Gives values where `flag` [] or [B] holds, else zeros of their types."""
  return jax.tree.map(
    lambda v: jnp.where(
      along(flag, v) if flag.ndim else flag, v, jnp.zeros((), v.dtype)
    ),
    values,
  )


def along(mask: Array, x: Array) -> Array:
  """Reshapes [B] to as many axes as `x` [B, ...]."""
  return mask.reshape((-1,) + (1,) * (x.ndim - 1))


def choose(flag: Array, on, off, *args, branch: bool = True) -> PyTree:
  """Gives `on(*args)` where `flag` [] holds, else `off(*args)`.

  Under a vmap over `flag` a `lax.cond` runs both sides anyway, and first copies
  everything that they close over for every client: the whole bank of windows
  and the frozen base. There ask for a plain selection.

  Args:
    flag: [] bool.
    on: function of `args`.
    off: function of `args`, same output.
    *args: pytrees.
    branch: really skip the other side (static); False under a vmap.
  """
  if branch:
    return jax.lax.cond(flag, on, off, *args)
  return jax.tree.map(partial(jnp.where, flag), on(*args), off(*args))


def part(chosen: PyTree, tree: PyTree) -> PyTree:
  """Takes some parameters; None in place of the others.

  Args:
    chosen: prefix tree of `tree`, Python bools.
    tree: P.

  >>> part({'b': True, 'w': False}, {'b': 1, 'w': 2})
  {'b': 1, 'w': None}
  """
  return jax.tree.map(lambda on, t: t if on else None, chosen, tree)


def join(chosen: PyTree, mine: PyTree, rest: PyTree) -> PyTree:
  """Puts `part(chosen, ...)` and the other parameters together.

  Args:
    chosen: prefix tree, Python bools.
    mine: where it holds.
    rest: elsewhere.
  """
  return jax.tree.map(lambda on, a, b: a if on else b, chosen, mine, rest)


def group_sum(groups: PyTree, tree: PyTree, num: int) -> Array:
  """Sums a tree of scalars [P of []] by group, [G]."""
  sums = jax.tree.map(lambda g, t: sum(jax.tree.leaves(t)), groups, tree)
  total = jnp.zeros(num)
  pairs = zip(jax.tree.leaves(groups), jax.tree.leaves(sums), strict=True)
  for g, value in pairs:
    total = total.at[g].add(value)
  return total


def group_sq_norms(groups: PyTree, tree: PyTree, num: int) -> Array:
  """Computes the squared Euclidean norm of every group, [G].

  No dot product: accelerators may round its factors to fewer bits.
  """
  return group_sum(
    groups, jax.tree.map(lambda u: jnp.square(u).sum(), tree), num
  )


def group_sizes(groups: PyTree, tree: PyTree, num: int) -> Array:
  """Counts the numbers of every group, [G] float32."""
  return group_sum(groups, jax.tree.map(lambda u: float(u.size), tree), num)


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
  """Lets calls with arguments of like shapes share one trace of a function.

  The trace goes into the caller's own, so that the program is the same. Where a
  function is asked for its shapes (`zeros_like_output`) and then called, on
  every level of nesting, tracing otherwise takes twice as long on each of them.

  Args:
    function: of arrays.
  """
  return jax.jit(function, inline=True)


def zeros_like_output(function, *args) -> PyTree:
  """Gives typed zeros in the shape of `function(*args)`, without running it.

  It is traced for that: hand in what `traced_once` gives where it is called,
  too.
  """
  return jax.tree.map(
    lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, *args)
  )


def named_leaves(value: PyTree, separator: str = '.') -> dict[str, Any]:
  """Maps the path of each leaf to it, in the order of `jax.tree.leaves`.

  >>> named_leaves({'head': {'b': 1}, 'encoder': [2, 3]})
  {'encoder.0': 2, 'encoder.1': 3, 'head.b': 1}
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(value)
  return {
    jax.tree_util.keystr(path, simple=True, separator=separator): leaf
    for path, leaf in leaves
  }


def with_leaves(
  value: PyTree, new: Mapping[str, Any], separator: str = '/'
) -> PyTree:
  """Replaces leaves by their names, those of `named_leaves`.

  >>> with_leaves({'head': {'b': 1}, 'encoder': [2, 3]}, {'encoder/0': 5})
  {'encoder': [5, 3], 'head': {'b': 1}}

  Args:
    value: pytree.
    new: {name: leaf}; others stay.
    separator: of the parts of a name.
  """
  named = named_leaves(value, separator)
  assert not set(new) - set(named)
  leaves = [new.get(name, leaf) for name, leaf in named.items()]
  return jax.tree.unflatten(jax.tree.structure(value), leaves)
