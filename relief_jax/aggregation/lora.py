"""Merges adapters of low rank: factors apart, products exactly, or by SVD.

The mean of products a_n b_n is not the product of mean factors. With
da_n, db_n the updates of device n, M_n the ranks that it has and p_n its
weight, what devices hold after training is on average, by layer and modality,

    goal = s (a (sum p_n M_n) b + a sum p_n db_n + sum p_n da_n b
              + sum p_n da_n db_n),

sums that are added up as updates arrive: nothing is stacked over clients. The
servers here make the next factors of it, and may put the rest into the base,
which is then state of the server (`Merged`):

    apart      a, b <- means; the product is off by `error`
    residual   a, b <- means; W <- W + goal - s a b        (FedEx-LoRA)
    restart    W <- W + goal; a drawn anew, b <- 0         (FLoRA)
    truncated  a, b <- the largest singular values of goal (FlexLoRA)
    turned     a, b <- an orthonormal a, the same product  (FedSVD)

Where nobody trained a layer its product stays.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp

from relief_jax import tree
from relief_jax.aggregation.mean import Aggregator, with_sums
from relief_jax.budgets import ranks as ranks_lib
from relief_jax.budgets.ranks import Halves
from relief_jax.task import LowRank, Ranks, Task
from relief_jax.types import Array, PyTree

# By default an accelerator rounds the factors of a product to fewer bits.
dot = partial(jnp.matmul, precision='highest')


class Sums(NamedTuple):
  """Holds weighted sums over devices, of one modality of a layer.

  Attributes:
    weight: [] of the devices that hold it.
    rank: [R] of those that have each rank.
    a: [i, R] updates.
    b: [R, o].
    product: [i, o] of the updates' products.
  """

  weight: Array
  rank: Array
  a: Array
  b: Array
  product: Array


class Merged(NamedTuple):
  """Holds the server's part of the base, and facts of the last merge.

  Attributes:
    offset: {name among what is frozen: [i, o]}, added to it; {} where the
      method merges nothing into the base.
    stacked: [L] float32, ranks of all devices whose factors were merged so far.
    error: [] |s a b - goal| / |goal| of all adapters, after the last round.
    dense: [] share of the layers whose last merge is smaller as a dense matrix.
  """

  offset: Mapping[str, Array] = {}
  stacked: Any = ()
  error: Any = ()
  dense: Any = ()


class Args(NamedTuple):
  """Holds what a plan tells its devices, `Plan.client_args`; every field [K].

  Attributes:
    rank: [K, L] int32, of every layer.
    a: bool, these factors train.
    b: bool.
    more: what the method tells beside them.
  """

  rank: Array
  a: Array
  b: Array
  more: PyTree = ()

  @property
  def halves(self) -> Halves:
    """The halves that train."""
    return Halves(self.a, self.b)


def products(task: Task, ranks: Ranks, aggregator: Aggregator) -> Aggregator:
  """Adds the sums of products to a mean of factors, `Mean.extra`.

  Of a modality its owners' products count if `a` trains; else all that train b.
  Who has rank 0 in a layer does not count there.

  Args:
    task: the model.
    ranks: of it.
    aggregator: of the factors; devices' arguments are `Args`.
  """
  group = ranks_lib.leaf_groups(task)

  def measure(update, device):
    found = {}
    delta = tree.named_leaves(update.delta, '/')
    args: Args = device.args
    for number, layer in enumerate(ranks.layers):
      rank = args.rank[number]
      there = (jnp.arange(ranks.rank) < rank).astype(jnp.float32)
      db = there[:, None] * delta[layer.b]
      for a, base in zip(layer.a, layer.base, strict=True):
        weight = jnp.where(
          args.a, update.weight[group[a]], update.weight[group[layer.b]]
        )
        weight = jnp.where(rank > 0, weight, 0.0)
        da = delta[a] * there[None]
        one = Sums(jnp.float32(1.0), there, da, db, dot(da, db))
        found[base] = tree.scale(weight, one)
    return found

  return with_sums(aggregator, measure)


def factors(layer: LowRank, params: PyTree) -> tuple[list[Array], Array]:
  """Takes the factors of a layer out of the parameters."""
  named = tree.named_leaves(params, '/')
  return [named[a] for a in layer.a], named[layer.b]


def pieces(ranks: Ranks, params: PyTree) -> dict[str, Array]:
  """Computes all products s a b, {name among what is frozen: [i, o]}."""
  found = {}
  for layer in ranks.layers:
    first, b = factors(layer, params)
    for base, a in zip(layer.base, first, strict=True):
      found[base] = ranks.scale * dot(a, b)
  return found


def goals(
  ranks: Ranks, params: PyTree, sums: Mapping[str, Sums], rate: Array
) -> dict[str, Array]:
  """Computes the mean of the devices' products, as `pieces`.

  Args:
    ranks: of the model.
    params: P that devices started from.
    sums: `Mean.extra`.
    rate: [] of the server, 1 for the mean itself.
  """
  found = {}
  for layer in ranks.layers:
    first, b = factors(layer, params)
    for base, a in zip(layer.base, first, strict=True):
      one = sums[base]
      whole = (
        dot(a * one.rank[None], b) + dot(a, one.b) + dot(one.a, b) + one.product
      ) / jnp.where(one.weight > 0, one.weight, 1.0)
      old = dot(a, b)
      mean = jnp.where(one.weight > 0, old + rate * (whole - old), old)
      found[base] = ranks.scale * mean
  return found


def error(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> Array:
  """Computes the relative error of all products together, []."""
  away = sum(jnp.square(found[k] - wanted[k]).sum() for k in wanted)
  norm = sum(jnp.square(v).sum() for v in wanted.values())
  return jnp.sqrt(away / jnp.where(norm > 0, norm, 1.0))


def offsets(ranks: Ranks, params: PyTree) -> dict[str, Array]:
  """Gives a base that nothing was merged into yet, `Merged.offset`."""
  return {k: jnp.zeros_like(v) for k, v in pieces(ranks, params).items()}


def rebased(frozen: PyTree, offset: Mapping[str, Array]) -> PyTree:
  """Adds what was merged to the base."""
  named = tree.named_leaves(frozen, '/')
  return tree.with_leaves(frozen, {k: named[k] + v for k, v in offset.items()})


def touched(layer: LowRank, sums: Mapping[str, Sums]) -> Array:
  """Tells whether anybody trained a layer, [] bool."""
  return jnp.stack([sums[base].weight > 0 for base in layer.base]).any()


def _replaced(ranks, params, sums, make) -> PyTree:
  """Replaces the factors of layers that somebody trained.

  Args:
    ranks: of the model.
    params: P.
    sums: `Mean.extra`.
    make: (layer, [a], b) -> ([a], b).
  """
  new = {}
  for layer in ranks.layers:
    first, b = factors(layer, params)
    after, b_after = make(layer, first, b)
    on = touched(layer, sums)
    new[layer.b] = jnp.where(on, b_after, b)
    for name, old, a in zip(layer.a, first, after, strict=True):
      new[name] = jnp.where(on, a, old)
  return tree.with_leaves(params, new)


def restarted(
  ranks: Ranks, params: PyTree, sums: Mapping[str, Sums], fresh: PyTree
) -> PyTree:
  """Draws `a` anew and sets b to 0 where products went into the base, P.

  Args:
    ranks: of the model.
    params: P that devices started from.
    sums: `Mean.extra`.
    fresh: P of an initial model.
  """
  new = {}
  for layer in ranks.layers:
    first, b = factors(layer, params)
    drawn, zero = factors(layer, fresh)
    new[layer.b] = jnp.where(touched(layer, sums), zero, b)
    every = zip(layer.a, layer.base, first, drawn, strict=True)
    for name, base, old, a in every:
      new[name] = jnp.where(sums[base].weight > 0, a, old)
  return tree.with_leaves(params, new)


def truncated(
  ranks: Ranks,
  params: PyTree,
  sums: Mapping[str, Sums],
  goal: Mapping[str, Array],
) -> PyTree:
  """Cuts products to their R largest singular values, P.

  a has orthonormal columns and b the singular values, largest first: the first
  r of them are the best product of rank r.

  Args:
    ranks: of the model.
    params: P.
    sums: `Mean.extra`.
    goal: of `goals`.
  """

  def make(layer, first, b):
    del b
    whole = jnp.concatenate([goal[base] for base in layer.base])
    a, s, v = singular(whole / ranks.scale, ranks.rank)
    return split(a, first), s[:, None] * v

  return _replaced(ranks, params, sums, make)


def turned(ranks: Ranks, params: PyTree, sums: Mapping[str, Sums]) -> PyTree:
  """Gives `a` orthonormal columns, with the same products, P.

  Args:
    ranks: of the model.
    params: P.
    sums: `Mean.extra`.
  """

  def make(layer, first, b):
    del layer
    q, r = jnp.linalg.qr(jnp.concatenate(first))
    u, s, v = singular(dot(r, b), ranks.rank)
    return split(dot(q, u), first), s[:, None] * v

  return _replaced(ranks, params, sums, make)


def singular(value: Array, rank: int) -> tuple[Array, Array, Array]:
  """Computes the largest singular values, [i, o] -> [i, r], [r], [r, o].

  The largest number of every right vector is positive: else its sign would
  follow from the order in which sums were made.
  """
  u, s, v = jnp.linalg.svd(value, full_matrices=False)
  u, s, v = u[:, :rank], s[:rank], v[:rank]
  at = jnp.abs(v).argmax(1, keepdims=True)
  sign = jnp.where(jnp.take_along_axis(v, at, 1) < 0, -1.0, 1.0)
  return u * sign.T, s, v * sign


def split(whole: Array, like: list[Array]) -> list[Array]:
  """Splits [sum i_m, R] by modality."""
  ends = [0]
  for part in like:
    ends.append(ends[-1] + part.shape[0])
  return [whole[low:high] for low, high in zip(ends, ends[1:], strict=False)]
