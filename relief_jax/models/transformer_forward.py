"""Computes the transformer: parameters, tokens, blocks, class scores."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.models import experts, layers, lora_layers
from relief_jax.models import transformer_layers as parts
from relief_jax.models.encoders import Spec
from relief_jax.models.transformer_work import LINEAR, Trained
from relief_jax.task import Skip
from relief_jax.types import Array, PyTree

# Of a block's key.
_EXPERTS = 200


class Cut(NamedTuple):
  """Says which groups the parameters of a model are in.

  Attributes:
    embed: [M] groups of the modalities' embeddings; () where frozen.
    low: the group of the half of their adapters that all share, or None.
    blocks: [L]; one with a mixture of experts has it in place of its MLP.
    head: the group of the last norm and layer.
    adapted: blocks hold adapters, of a frozen base; the head trains.
  """

  embed: tuple[int, ...]
  low: int | None
  blocks: tuple[Trained, ...]
  head: int
  adapted: bool

  def below(self, block: int) -> list[int]:
    """Lists the groups of all that comes before a block."""
    found = {*self.embed, *(() if self.low is None else (self.low,))}
    for own in self.blocks[:block]:
      found |= set(own.groups)
    return sorted(found)

  @property
  def mixed(self) -> tuple[int, ...]:
    """Numbers of the blocks with a mixture of experts, [n]."""
    return tuple(i for i, own in enumerate(self.blocks) if own.mixture)


def patches(spec: Spec, m: int) -> tuple[int, int]:
  """Counts the tokens of a modality, and the numbers of one; 0 for text."""
  _, *shape = spec.example[spec.modalities[m]].shape
  if spec.text:
    return shape[0], 0
  *extent, channels = shape
  number = [-(-size // spec.patch) for size in extent]
  return int(np.prod(number)), spec.patch ** len(extent) * channels


def cut_patches(x: Array, patch: int) -> Array:
  """Cuts [B, *extent, c] into patches, [B, T, numbers]; zeros fill them up."""
  axes = x.ndim - 2
  x = jnp.pad(x, [(0, 0), *((0, -n % patch) for n in x.shape[1:-1]), (0, 0)])
  number = [n // patch for n in x.shape[1:-1]]
  pairs = [size for n in number for size in (n, patch)]
  x = x.reshape(x.shape[0], *pairs, x.shape[-1])
  outer, inner = range(1, 2 * axes, 2), range(2, 2 * axes + 1, 2)
  x = x.transpose(0, *outer, *inner, 2 * axes + 1)
  return x.reshape(x.shape[0], int(np.prod(number)), -1)


def init(key: Array, spec: Spec) -> PyTree:
  """Draws all parameters: {'embed': {m: …}, 'blocks': […], 'head'}."""
  embed_key, block_key, head_key = jax.random.split(key, 3)
  d, embed = spec.d, {}
  for m, name in enumerate(spec.modalities):
    w_key, position_key = jax.random.split(jax.random.fold_in(embed_key, m))
    number, fan_in = patches(spec, m)
    if spec.text:
      w = 0.02 * jax.random.normal(w_key, (spec.symbols, d))
    else:
      w = parts.linear_init(w_key, fan_in, d)['w']
    position = 0.02 * jax.random.normal(position_key, (number, d))
    embed[name] = {'w': w, 'position': position}
  last = parts.linear_init(head_key, d, spec.classes)
  # Small weights, so that the first loss is close to log C.
  head = {'norm': parts.norm_init(d), 'w': 0.1 * last['w'], 'b': last['b']}
  blocks = [
    _init_block(jax.random.fold_in(block_key, i), d) for i in range(spec.blocks)
  ]
  first = spec.blocks - spec.mixture.blocks
  for i, block in enumerate(blocks[first:], first):
    del block['up'], block['down']
    own = jax.random.fold_in(jax.random.fold_in(block_key, i), _EXPERTS)
    block |= _init_mixture(own, spec)
  return {'embed': embed, 'blocks': blocks, 'head': head}


def _init_block(key: Array, d: int) -> PyTree:
  keys = jax.random.split(key, len(LINEAR))
  linear = {
    name: parts.linear_init(k, i * d, o * d)
    for k, (name, (i, o)) in zip(keys, LINEAR.items(), strict=True)
  }
  return {**linear, 'norm1': parts.norm_init(d), 'norm2': parts.norm_init(d)}


def _init_mixture(key: Array, spec: Spec) -> PyTree:
  gate_key, *keys = jax.random.split(key, spec.mixture.number + 1)
  d, width = spec.d, spec.mixture.inside(spec.d)

  def expert(key):
    up, down = (
      parts.linear_init(k, *size)
      for k, size in zip(
        jax.random.split(key), ((d, width), (width, d)), strict=True
      )
    )
    return {'up': up['w'], 'b': up['b'], 'down': down['w'], 'c': down['b']}

  return {
    'gate': parts.linear_init(gate_key, d, spec.mixture.number),
    'expert': [expert(k) for k in keys],
  }


def encode(spec: Spec, cut_groups: Cut, params, frozen, m: int, x, cut: int):
  """Makes the tokens of a modality.

  Args:
    spec: of the model.
    cut_groups: its groups.
    params: P.
    frozen: the base, or {}.
    m: number of the modality.
    x: inputs [B, *S].
    cut: 1: the embedding is frozen.

  Returns:
    {'tokens': [B, T_m, d], 'there': [B] ones}, of adapters also
    'low': [B, T_m, r]. Zeros in all of them are a sensor that is not there.
    Of texts that have a class 'there' is [B, T_m], 0 where no token is.
  """
  name = spec.modalities[m]
  there = jnp.ones(x.shape[0])
  if spec.vocabulary:
    there = (x >= 0).astype(jnp.float32)
    x = jnp.maximum(x, 0)
  if cut_groups.adapted:
    own = frozen['embed'][name]
  else:
    own = layers.stop_below(params['embed'][name], cut > 0)

  def through(w):
    if spec.text:
      return w[x]
    inputs = cut_patches(x, spec.patch)
    flat = inputs.reshape(-1, inputs.shape[-1])
    return (flat @ w).reshape(*inputs.shape[:2], -1)

  tokens = through(own['w'])
  tokens += jnp.broadcast_to(own['position'], tokens.shape)
  found = {'tokens': tokens, 'there': there}
  if cut_groups.low is not None:
    a = layers.stop_below(params['embed']['a'][name], cut > 0)
    found['low'] = through(a)
  return found


def fuse(
  spec: Spec,
  cut: Cut,
  params: PyTree,
  frozen: PyTree,
  features: dict[str, PyTree],
  run: Array,
  skip: Skip | None = None,
) -> Array:
  """Computes logits, [B, C], of text [B, T, C].

  Args:
    spec: of the model.
    cut: its groups.
    params: P.
    frozen: the base, or {}.
    features: of `encode`, of all modalities or some.
    run: [M] bool, modalities that are there.
    skip: one client is trained at a time: what need not be computed.
  """
  return fuse_routed(spec, cut, params, frozen, features, run, skip)[0]


def fuse_routed(
  spec: Spec, cut: Cut, params, frozen, features, run, skip: Skip | None = None
) -> tuple[Array, Array | None]:
  """Computes logits, and how the tokens are routed on the way.

  Args: as `fuse`.

  Returns:
    As `fuse`, and probabilities [B, T, n, E]; None without experts.
  """
  x, seen = gather(spec, cut, params, features, run, skip)
  every = range(len(cut.blocks))
  x, routing = blocks(spec, cut, params, frozen, x, seen, every, skip)
  return head(spec, cut, params, frozen, x, seen), routing


def route(spec: Spec, cut: Cut, params, features, run) -> Array:
  """Computes how tokens are routed, [B, T, n, E]; arguments as `fuse`."""
  x, seen = gather(spec, cut, params, features, run)
  until = range(cut.mixed[-1] + 1)
  _, routing = blocks(spec, cut, params, {}, x, seen, until)
  assert routing is not None
  return routing


def gather(
  spec: Spec, cut: Cut, params, features, run, skip: Skip | None = None
) -> tuple[Array, Array]:
  """Puts all tokens in a row, [B * T, d], and marks those that are there.

  Args: as `fuse`.

  Returns:
    Tokens before the first block, and [B, T] 1 or 0.
  """
  every, seen = _gather(spec, features, run, skip)
  x = every['tokens'].reshape(-1, spec.d)
  if cut.low is not None:
    low = every['low'].reshape(-1, spec.rank) @ params['embed']['b']
    x += spec.lora_alpha / spec.rank * low
  return x, seen


def blocks(
  spec: Spec,
  cut: Cut,
  params,
  frozen,
  x: Array,
  seen: Array,
  which: Iterable[int],
  skip: Skip | None = None,
) -> tuple[Array, Array | None]:
  """Computes some blocks one after another, [B * T, d] -> [B * T, d].

  Args:
    spec: of the model.
    cut: its groups.
    params: P.
    frozen: the base, or {}.
    x: tokens.
    seen: [B, T] 1 where a token is there.
    which: numbers of the blocks.
    skip: as in `fuse`.

  Returns:
    Tokens behind them, and as in `fuse_routed`, of the experts among them.
  """
  batch, length = seen.shape
  bias = jnp.where(seen > 0, 0.0, layers.NEVER)[:, None, None, :]
  if spec.next_token:
    later = np.triu(np.full((length, length), layers.NEVER, np.float32), 1)
    bias = jnp.maximum(bias + later[None, None], layers.NEVER)
  routing = []
  for i in which:
    own = cut.blocks[i]
    base = frozen['blocks'][i] if cut.adapted else None
    start = partial(_attended, spec, base, bias, batch, skip is not None)
    layer: Callable[..., Any] = partial(_block, start)
    if own.mixture is not None:
      layer = partial(_mixed, start, own.mixture, seen.reshape(-1), skip)
    groups = np.array([*own.groups, *cut.below(i)])
    wanted = skip and skip.train[groups].any() if len(groups) else None
    x = parts.gated(layer, params['blocks'][i], x, wanted)
    if own.mixture is not None:
      x, p = x
      routing.append(p.reshape(batch, length, -1))
  return x, jnp.stack(routing, 2) if routing else None


def _gather(spec, features, run, skip) -> tuple[dict[str, Array], Array]:
  """Puts all tokens in a row: what `encode` gave, [B, T, ...], and a mask.

  Those of sensors that do not run are left out where their number is known.
  """
  at = [i for i, m in enumerate(spec.modalities) if m in features]
  every = [features[spec.modalities[i]] for i in at]
  run = jnp.asarray(run)[np.array(at)]
  if skip and skip.length and skip.length < len(at):
    first = jnp.argsort(~run, stable=True)[: skip.length]
    stacked = jax.tree.map(lambda *h: jnp.stack(h)[first], *every)
    every = [
      jax.tree.map(lambda h, i=i: h[i], stacked) for i in range(skip.length)
    ]
    run = run[first]
  seen = [
    jnp.broadcast_to(
      (h['there'] * run[i]).reshape(len(h['tokens']), -1),
      h['tokens'].shape[:2],
    )
    for i, h in enumerate(every)
  ]
  rows = {
    k: jnp.concatenate([h[k] for h in every], 1)
    for k in every[0]
    if k != 'there'
  }
  return rows, jnp.concatenate(seen, 1)


def _block(start, params, x) -> Array:
  """Computes a block, [R, d] -> [R, d]; `start` is its `_attended`."""
  x, h, linear = start(params, x)
  return x + linear(parts.gelu(linear(h, 'up')), 'down')


def _mixed(start, own, seen, skip, params, x) -> tuple[Array, Array]:
  """Computes a block whose MLP is a mixture; also p, [R, E]."""
  x, h, _ = start(params, x)
  p = experts.shares(params['gate'], h, params['gate']['b'])
  p = jnp.where(seen[:, None] > 0, p, 0.0)
  weight = experts.weigh(p, own.mixture.top)
  return experts.added(own, params, x, h, weight, skip), p


def _attended(spec, base, bias, batch, merge, params, x):
  """Computes a block up to its MLP: x, what the MLP reads, (x, layer) -> y.

  `base` is what `params` adapt, or None.
  """
  own = params if base is None else base
  scale = spec.lora_alpha / spec.rank

  def linear(x, name):
    low = None if base is None else params.get(name)
    return parts.linear(x, own[name], low, scale, merge)

  h = parts.layer_norm(x, **own['norm1'])
  q, k, v = (linear(h, name) for name in ('q', 'k', 'v'))
  mixed = parts.attention(q, k, v, bias, batch, spec.attention_heads)
  x = x + linear(mixed, 'o')
  return x, parts.layer_norm(x, **own['norm2']), linear


def head(spec, cut, params, frozen, x, seen) -> Array:
  """Computes logits of every token that is to be told, else of the mean."""
  based = cut.adapted and spec.base_head
  last = lora_layers.whole_head(params, frozen, based)
  batch, length = seen.shape
  if not spec.next_token:
    each = x.reshape(batch, length, -1) * seen[..., None]
    most = jnp.maximum(seen.sum(1, keepdims=True), 1.0)
    x = each.sum(1) / most
  x = parts.layer_norm(x, **last['norm'])
  logits = parts.product(x, last['w'], last['b'])
  return logits.reshape(batch, length, -1) if spec.next_token else logits
