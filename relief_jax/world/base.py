"""Pretrains a frozen base on public windows; caches its features. **Ours.**"""

import functools

import jax
import jax.numpy as jnp
import optax

from relief_jax import tree
from relief_jax.clients import training
from relief_jax.models import cnn, lora
from relief_jax.models.encoders import Spec
from relief_jax.task import Batch, Gate, Steps
from relief_jax.types import Bank, PyTree

# Purpose of a base's key, beside its initial values and its batches.
_DROPOUT = 2


@functools.partial(jax.jit, static_argnums=(1, 3))
def pretrain(
  key: jax.Array, spec: Spec, public: Bank, steps: int, dropout: float
) -> PyTree:
  """Trains a frozen base centrally on public windows (ours).

  Args:
    key: of the seed: the base is part of what a seed draws.
    spec: of the LoRA model.
    public: windows of persons that are on no device and in no test.
    steps: of SGD, batch 32, momentum 0.9, gradients clipped to norm 1, rate
      from 0.05 to 0 along a cosine: at a constant rate, unclipped, one of two
      bases of three layers ends dead on DSADS, and both do with dropout.
    dropout: of whole modalities; 0: all sensors are on in every step.

  Returns:
    The frozen parameters of `lora.lora`.
  """
  full = spec._replace(cached=False, adapters=False)
  task = cnn.cnn(full)
  init_key, row_key = jax.random.split(key)
  drop_key = jax.random.fold_in(key, _DROPOUT)
  row = jax.random.randint(row_key, (steps, 32), 0, public.y.shape[0])
  every = jnp.ones(len(spec.modalities), bool)
  run = training.modality_dropout(drop_key, every, jnp.float32(dropout), steps)
  train = jnp.ones(task.num_blocks, bool)

  def loss(params, step):
    batch = Batch(public, step.row, step.weight)
    gate = Gate(step.run, None, train)
    scores = training.logits(task, params, {}, batch, gate)
    return training.cross_entropy(scores, public.y[step.row], step.weight)

  params = task.init(init_key)
  done = training.local_update(
    loss,
    optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.sgd(optax.cosine_decay_schedule(0.05, steps), momentum=0.9),
    ),
    params,
    tree.broadcast_groups(task.groups, train),
    Steps(row, jnp.ones(row.shape), run, None),
  )
  return lora.freeze(jax.tree.map(jnp.add, params, done.delta), spec.base_head)


@functools.partial(jax.jit, static_argnums=0)
def cache_features(spec: Spec, frozen: PyTree, bank: Bank) -> Bank:
  """Computes the frozen encoders' features of every window, once.

  Args:
    spec: of the model.
    frozen: from `pretrain` or `lora.base`.
    bank: windows.

  Returns:
    Bank of [windows, d_m] features; `fill` holds the features of a filled
    window.
  """
  task = lora.lora(spec._replace(cached=False))

  def encode(m, x):
    def one(window):
      return task.encode({}, frozen, m, window[None], task.cuts)[0]

    return jax.lax.map(one, x, batch_size=256)

  x, fill = {}, {}
  for m, name in enumerate(spec.modalities):
    x[name] = encode(m, bank.x[name])
    empty = jnp.broadcast_to(bank.fill[name], bank.x[name].shape[1:])
    fill[name] = encode(m, empty[None])[0]
  return Bank(x=x, fill=fill, y=bank.y)
