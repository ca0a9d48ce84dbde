"""HetLoRA: ranks per device, zero-padded means (https://arxiv.org/abs/2401.06432).

A device has the first r_n ranks of every adapter. The server averages factors
that are padded with zeros, with weights |a_n b_n|_F of every block, so that
devices whose adapters say more count more (`weights=norm`; a block without
adapters, or where all of them are 0: equal). `over=contributors` averages every
rank over those who have it instead. *Pruning*: the local loss has
`prune` |a_tail| |b_tail| of the ranks beyond floor(gamma r_n), at least
`least`; where that product fell in a round the device goes on without them.
*Bytes*: r_n (i + o) both ways.

Grade: secondary: the port in split training
(https://github.com/measaverb/SplitHetLoRA); expect orderings, not numbers. Of
the port: a weight of 1 of the pruned term, which wipes out the last of few
ranks within rounds, so that it is .01 here (**ours**). One scale on both
sides: budgets/ranks.py (**ours**). *Budget* (**ours**): at the most the largest
rank of R, R / 2, ... whose FLOPs and memory fit; who affords none sits out.
Devices are tested with that rank, pruned or not.
"""

import dataclasses

import jax
import jax.numpy as jnp

from relief_jax.aggregation import lora
from relief_jax.algorithms.parts.adapters import Family, Kind, RankOptions
from relief_jax.budgets import ranks as ranks_lib
from relief_jax.budgets.ranks import Halves
from relief_jax.clients.device import Device, Received, Update
from relief_jax.keys import name, option, real, whole
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Ranks, Task
from relief_jax.types import Array, PyTree

_LEAST = 1e-12  # of a weight: where all products are 0, all count the same


@dataclasses.dataclass(frozen=True)
class Options(RankOptions):
  """Holds the options of HetLoRA."""

  weights: str = option(
    name('norm', ('norm', 'equal'), 'of devices, by the norm of their product')
  )
  over: str = option(
    name('all', ('all', 'contributors'), 'a rank is averaged over all, or some')
  )
  prune: float = option(
    real(0.01, 0, 1000, 'weight of the last ranks in the loss; 0: no pruning')
  )
  gamma: float = option(
    real(0.99, 0, 1, 'share of the ranks that are not pruned', above=True)
  )
  least: int = option(whole(1, 1, 10**4, 'ranks that stay'))


def norm(value: Array) -> Array:
  """Computes a Euclidean norm, [], whose gradient at 0 is 0."""
  squares = jnp.square(value).sum()
  some = squares > 0
  return jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1.0)), 0.0)


def kept(options: Options, rank: Array) -> Array:
  """Computes floor(gamma r), ranks that are not pruned, [L] int32."""
  fewer = jnp.floor(options.gamma * rank.astype(jnp.float32))
  return jnp.maximum(fewer.astype(jnp.int32), options.least)


def tail(ranks: Ranks, params: PyTree, rank: Array, first: Array) -> Array:
  """Computes the sum of |a_tail| |b_tail| over all layers, [].

  Args:
    ranks: of the model.
    params: P.
    rank: [L] int32, r.
    first: [L] int32, number of the first rank of the tail.
  """
  at = jnp.arange(ranks.rank)
  total = jnp.float32(0.0)
  for number, layer in enumerate(ranks.layers):
    last = (at >= first[number]) & (at < rank[number])
    every, b = lora.factors(layer, params)
    a = jnp.concatenate(every)
    total += norm(jnp.where(last[None], a, 0.0)) * norm(
      jnp.where(last[:, None], b, 0.0)
    )
  return total


def votes(task: Task, ranks: Ranks, params: PyTree) -> Array:
  """Computes the norm of the products in every block, [G]; 1 without."""
  group = ranks_lib.leaf_groups(task)
  squares = jnp.zeros(task.num_blocks)
  adapted = jnp.zeros(task.num_blocks, bool)
  for layer in ranks.layers:
    first, b = lora.factors(layer, params)
    gram = lora.dot(b, b.T)
    product = sum((lora.dot(a.T, a) * gram).sum() for a in first)
    for g in {group[leaf] for leaf in (*layer.a, layer.b)}:
      squares = squares.at[g].add(jnp.maximum(product, 0.0))
      adapted = adapted.at[g].set(True)
  found = jnp.maximum(ranks.scale * jnp.sqrt(squares), _LEAST)
  return jnp.where(adapted, found, 1.0)


def weighted(
  task: Task, ranks: Ranks, update: Update, received: Received, device: Device
) -> Update:
  """Gives an update the norms of the device's products as weights."""
  rank = device.args.rank
  held = ranks_lib.elements(ranks, update.delta, rank, Halves())
  change = jax.tree.map(lambda m, d: jnp.where(m, d, 0.0), held, update.delta)
  own = ranks_lib.cut(ranks, received.params, rank)
  return update.weighted(votes(task, ranks, jax.tree.map(jnp.add, own, change)))


@Facts(options=Options, adapters=True, budgeted=True, splits=True)
def hetlora(task: Task, setting: Setting) -> Method:
  """Builds HetLoRA; with equal weights and ranks and no pruning it is FedIT."""
  options: Options = setting.options
  kind = Kind(
    budgeted=True,
    padded=options.over == 'all',
    most=lambda round: round.clients,
  )
  family = Family(task, setting, 'hetlora', kind)
  ranks, method = family.ranks, family.method()

  def penalty(params, received, device: Device):
    del received
    rank = device.args.rank
    return options.prune * tail(ranks, params, rank, kept(options, rank))

  train = family.client(penalty=penalty if options.prune else None)

  def client(received: Received, device: Device) -> Update:
    update = train(received, device)
    rank, cap = device.args.rank, device.client_state
    if options.prune:
      after = jax.tree.map(jnp.add, received.params, update.delta)
      fewer = kept(options, rank)
      now, then = (
        tail(ranks, p, rank, fewer) for p in (after, received.params)
      )
      # All layers of a device have one rank.
      cap = jnp.where(now < then, jnp.minimum(fewer, rank).max(), cap)
    if options.weights == 'norm':
      update = weighted(task, ranks, update, received, device)
    return update._replace(client_state=cap.astype(jnp.int32))

  return method._replace(
    client=client,
    client_init=lambda params: jnp.int32(ranks.rank),
    traits=method.traits._replace(finds_weights=options.weights == 'norm'),
  )
