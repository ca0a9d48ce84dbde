"""Measures what adapted layers matter to the loss, per cost (**ours**).

Of one batch, at the server's model,

    imp[n, l] = |dL_n / dW_l|_F / cost_l,

where W_l is the layer's frozen weight: the gradient of the product of its
adapter is that times the scale, so that it tells how much a change of the
layer, of whatever rank, would bring at first. It is there while b is 0, when
gradients of `a` are not. cost_l are the FLOPs of a rank of the layer, forward
and backward, in those of the mean layer. The server keeps

    I <- rho mean_n imp[n] + (1 - rho) I,

the first measurement as it is; until then all layers are alike.

The price is that of a step of adapters of rank R and, of every layer, of the
dense product x^T delta, 4 bytes a layer up, and with a split the activations
and gradients of one more step. *Memory* beside that of a training step, one
layer's gradient at a time, is not counted.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import costs
from relief_jax.aggregation import lora
from relief_jax.algorithms.parts import one_batch
from relief_jax.budgets.ranks import Table, shapes
from relief_jax.rounds import frame
from relief_jax.rounds.method import Round
from relief_jax.settings import Setting
from relief_jax.task import Task
from relief_jax.types import Array, PyTree


class Known(NamedTuple):
  """Holds what the server knows of the layers.

  Attributes:
    importance: [L] float32, I.
    rounds: [] int32 in which it was measured.
  """

  importance: Array
  rounds: Array


class Importance:
  """Measures layers and remembers what was found.

  Args:
    task: the model, with adapters.
    setting: the round.
    table: of the ranks, with slopes.
    rho: weight of a new measurement.
  """

  def __init__(self, task: Task, setting: Setting, table: Table, rho: float):
    self.task, self.setting, self.table, self.rho = task, setting, table, rho
    slope = table.slope
    assert slope is not None  # a rank of every layer is asked for
    if slope.tokens is not None and task.work.tokens is not None:
      # A rank more has as many tokens.
      share = jnp.broadcast_to(task.work.tokens.share, slope.tokens.share.shape)
      tokens = dataclasses.replace(slope.tokens, share=share)
      slope = dataclasses.replace(slope, tokens=tokens)
    self.slope = slope
    every = jnp.ones((), bool)
    run, train = (
      jnp.broadcast_to(every, (size,))
      for size in (len(task.modalities), task.num_blocks)
    )
    each = jax.vmap(costs.step_flops, (0, None, None))(slope, run, train)
    self.cost = each / each.mean()

  def init(self) -> Known:
    """Gives what is known before anything was measured."""
    return Known(jnp.ones_like(self.cost), jnp.zeros((), jnp.int32))

  def dense(self, run: Array, access: Array) -> Array:
    """Prices the products x^T delta, [K, L] FLOPs per sample.

    The weight gradient of a rank of a layer's factors with i and o numbers
    takes n (i + o) FLOPs, for n numbers per token and sample; so the dense one
    takes n i o.

    Args:
      run: [K, M] bool, branches in the forward pass.
      access: [K, G] bool, blocks in reach.
    """
    counts, slope = self.table.counts, self.slope
    own = shapes(self.task)
    wide = [own[v.b].shape[1] for v in self.table.ranks.layers]
    numbers = np.maximum(counts.a + counts.b, 1)
    share = counts.a * np.array(wide)[:, None] / numbers

    def one(work, share):
      each = costs.of_run(work, run).wgrad
      each = jnp.broadcast_to(each, access.shape)
      return jnp.where(access, each * share[None], 0.0).sum(-1)

    return jax.vmap(one, out_axes=1)(slope, jnp.asarray(share, jnp.float32))

  def measure(
    self, params: PyTree, round: Round, measures: Array, flops: Array
  ) -> Array:
    """Measures on one batch of every participant that may, [K, L].

    Args:
      params: P.
      round: before its plan.
      measures: [K] bool.
      flops: [K] of it.
    """
    ranks = self.table.ranks

    def function(seen: one_batch.Seen) -> Array:
      nothing = lora.offsets(ranks, seen.params)
      slopes = jax.grad(lambda v: seen.loss(lora.rebased(seen.frozen, v)))
      found = slopes(nothing)
      squares = [
        sum(jnp.square(found[base]).sum() for base in layer.base)
        for layer in ranks.layers
      ]
      return jnp.sqrt(jnp.stack(squares)) / self.cost

    return one_batch.measure(
      self.task, self.setting, params, round, measures, flops, function
    )

  def after(
    self, known: Known, round: Round, measures: Array, found: Array
  ) -> Known:
    """Adds a round's measurements; what is no number is left out.

    Args:
      known: before.
      round: whose clients count as in its mean.
      measures: [K] bool.
      found: [K, L].
    """
    real = measures & jnp.isfinite(found).all(-1)
    weight = frame.weights(self.setting, round.fleet, round.active & real)
    total = weight.sum()
    mean = jnp.where(real[:, None], weight[:, None] * found, 0.0).sum(0)
    mean /= jnp.where(total > 0, total, 1.0)
    rho = jnp.where(known.rounds > 0, self.rho, 1.0)
    mixed = rho * mean + (1 - rho) * known.importance
    some = total > 0
    return Known(
      jnp.where(some, mixed, known.importance),
      known.rounds + some.astype(jnp.int32),
    )
