"""Pretrains a frozen base on public data; caches its features. **Ours.**"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from relief_jax import tree
from relief_jax.clients import training
from relief_jax.clients.records import Batch, Gate, Steps
from relief_jax.datasets import cache
from relief_jax.models import lora, transformer
from relief_jax.models.encoders import Spec
from relief_jax.task import Task
from relief_jax.types import Bank, PyTree

# Purpose of a base's key, beside its initial values and its batches.
_DROPOUT = 2

# Models with a frozen base: their whole form, and what freezes its parameters.
WHOLE: dict[str, Callable[[Spec], tuple[Task, Callable[[PyTree], PyTree]]]] = {
  'lora': lora.whole,
  'transformer': transformer.whole,
}


def pretrains(config: ml_collections.ConfigDict) -> bool:
  """Tells whether a run's model has a base that is trained on public data."""
  model = config.model
  adapted = config.backbone == 'lora' or (
    config.backbone == 'transformer' and model.lora and not model.weights
  )
  return bool(adapted and model.base == 'pretrained')


def kept(
  key: jax.Array,
  backbone: str,
  spec: Spec,
  public: Bank,
  steps: int,
  dropout: float,
) -> PyTree:
  """Reads a base from the user's cache, or trains it; as `pretrain`.

  Its name there is the program that trains it, and on what: a sweep over
  methods, rates and ranks trains one base per seed, and a changed model
  another. Without a cache it is trained each time.
  """
  # Of adapters the program knows nothing.
  whole = spec._replace(
    lora=(), rank=1, lora_alpha=1.0, cached=False, adapters=False
  )
  lowered = pretrain.lower(key, whole, public, steps, dropout, backbone)
  content = [np.asarray(v).tobytes() for v in jax.tree.leaves(public)]
  words = np.asarray(jax.random.key_data(key)).tobytes()
  name = cache.key(
    [lowered.as_text().encode(), words, *content],
    {
      'dropout': dropout,
      'jax': jax.__version__,
      'platform': jax.default_backend(),
    },
  )

  def build():
    base = lowered.compile()(key, public, dropout)
    return {k: np.asarray(v) for k, v in tree.named_leaves(base).items()}

  found = cache.arrays(f'base-{name}', build)
  like = lowered.out_info
  leaves = [jnp.asarray(found[k]) for k in tree.named_leaves(like)]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


@functools.partial(jax.jit, static_argnums=(1, 3, 5))
def pretrain(
  key: jax.Array,
  spec: Spec,
  public: Bank,
  steps: int,
  dropout: float,
  backbone: str = 'lora',
) -> PyTree:
  """Trains a frozen base centrally on public data (ours).

  Args:
    key: of the seed: the base is part of what a seed draws.
    spec: of the model with adapters.
    public: data of persons that are on no device and in no test.
    steps: of SGD, batch 32, momentum 0.9, gradients clipped to norm 1, rate
      from 0.05 to 0 along a cosine: at a constant rate, unclipped, one of two
      bases of three layers ends dead on DSADS, and both do with dropout.
    dropout: of whole modalities; 0: all sensors are on in every step.
    backbone: in `WHOLE`.

  Returns:
    The frozen parameters of that model.
  """
  task, freeze = WHOLE[backbone](spec)
  init_key, row_key = jax.random.split(key)
  drop_key = jax.random.fold_in(key, _DROPOUT)
  row = jax.random.randint(row_key, (steps, 32), 0, public.y.shape[0])
  every = jnp.ones(len(spec.modalities), bool)
  run = training.modality_dropout(drop_key, every, jnp.float32(dropout), steps)
  train = np.ones(task.num_blocks, bool)  # known: no branch of it is made
  criterion = training.criterion(task)

  def loss(params, step):
    batch = Batch(public, step.row, step.weight)
    gate = Gate(step.run, None, train)
    scores = training.logits(task, params, {}, batch, gate)
    return criterion(scores, public.y[step.row], step.weight)

  params = task.init(init_key)
  done = training.local_update(
    loss,
    optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.sgd(optax.cosine_decay_schedule(0.05, steps), momentum=0.9),
    ),
    params,
    tree.broadcast_groups(task.groups, jnp.asarray(train)),
    Steps(row, jnp.ones(row.shape), run, None),
  )
  return freeze(jax.tree.map(jnp.add, params, done.delta))


@functools.partial(jax.jit, static_argnums=0)
def cache_features(spec: Spec, frozen: PyTree, bank: Bank) -> Bank:
  """Computes the frozen encoders' features of every window, once.

  Args:
    spec: of the model, `lora`.
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
