"""Reads a transformer's weights from a .safetensors file of the user's.

Names may be this library's (`blocks.0.q.w`, as `export` writes them, with
`params.` or `frozen.` before), GPT-2's (`h.0.attn.c_attn.weight`, q, k and v in
one) or LLaMA's (`model.layers.0.self_attn.q_proj.weight`, [out, in]). A LLaMA
checkpoint itself has another architecture (RMS norm, rotary positions, a gated
MLP) and is refused by what it lacks; models under those names that have
positions, layer norms and a plain MLP fit.
"""

import os
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from relief_jax import tree
from relief_jax.errors import InputError
from relief_jax.files import paths
from relief_jax.types import PyTree

_SHOWN = 6  # of each kind of misfit
# What a file may hold beside the weights: constants of causal masks.
_CONSTANTS = re.compile(r'(^|\.)(attn\.(masked_)?bias|rotary_emb\.inv_freq)$')
_PREFIXES = re.compile(r'^(params\.|frozen\.|transformer\.)')

Arrays = dict[str, np.ndarray]


def stamp(path: str) -> tuple[str, int, int] | None:
  """Describes a file as it is now; None for no file.

  Raises:
    InputError: there is none.
  """
  if not path:
    return None
  try:
    found = os.stat(paths.expand(path, 'config.model.weights'))
  except OSError as error:
    raise _unreadable(path, error) from error
  return path, found.st_mtime_ns, found.st_size


def load(
  path: str, like: PyTree, without_head: bool
) -> tuple[PyTree, tuple[str, ...]]:
  """Reads weights of a given model.

  Args:
    path: of the file.
    like: {'embed', 'blocks', 'head'} of shapes.
    without_head: a head in the file is left out; a fresh one trains.

  Returns:
    The parts that the file has, and what a reader should know of them.

  Raises:
    InputError: names or shapes that do not fit, all of them in one line.
  """
  found = _named(_read(path), tuple(like['embed']))
  wanted = dict(like)
  notes: tuple[str, ...] = ()
  there = any(name.startswith('head.') for name in found)
  if without_head or not there:
    del wanted['head']
    found = {k: v for k, v in found.items() if not k.startswith('head.')}
  if not without_head and not there:
    notes = (f'{path} has no head: a fresh one is trained',)
  names = tree.named_leaves(wanted)
  _check(path, found, names)
  leaves = [jnp.asarray(found[name], jnp.float32) for name in names]
  return jax.tree.unflatten(jax.tree.structure(wanted), leaves), notes


def _read(path: str) -> Arrays:
  place = paths.expand(path, 'config.model.weights')
  try:
    with safetensors.safe_open(place, 'flax') as file:
      every = {name: file.get_tensor(name) for name in file.keys()}
  except (OSError, safetensors.SafetensorError) as error:
    raise _unreadable(path, error) from error
  return {k: np.asarray(v, np.float32) for k, v in every.items()}


def _unreadable(path: str, error: Exception) -> InputError:
  return InputError(
    f'config.model.weights={path}: {str(error).splitlines()[0]}',
    'a .safetensors file',
    'correct the path, or convert the weights to that format',
  )


def _named(every: Arrays, modalities: tuple[str, ...]) -> Arrays:
  """Gives arrays this library's names; what is not known keeps its own."""
  found: Arrays = {}
  for name, value in every.items():
    bare = _PREFIXES.sub('', name)
    if _CONSTANTS.search(bare) or bare.startswith('inputs.'):
      continue
    found |= _mapped(bare, value, modalities[0]) or {bare: value}
  _complete(found, every, modalities[0])
  return found


def _mapped(name: str, value: np.ndarray, modality: str) -> Arrays:
  """Gives one array of GPT-2 or LLaMA under this library's names."""
  for pattern, make in _RULES:
    hit = re.fullmatch(pattern, name)
    if hit:
      return make(value, modality, *hit.groups())
  return {}


def _split(value, modality, i, kind) -> Arrays:
  """Cuts GPT-2's c_attn [d, 3 d] into q, k, v."""
  del modality
  if value.shape[-1] % 3:
    return {}
  leaf = 'w' if kind == 'weight' else 'b'
  cut = np.split(value, 3, -1)
  return {f'blocks.{i}.{q}.{leaf}': v for q, v in zip('qkv', cut, strict=True)}


def _rule(target: str, transpose: bool = False) -> Callable[..., Arrays]:
  """Makes a rule; `{0}`, `{1}` are what the pattern caught, weight -> w."""

  def make(value, modality, *caught):
    leaf = {'weight': 'w', 'bias': 'b'}
    words = [_INNER.get(c, leaf.get(c, c)) for c in caught]
    name = target.format(*words, m=modality)
    turned = transpose and value.ndim == 2
    return {name: value.T if turned else value}

  return make


def _norm(target: str) -> Callable[..., Arrays]:
  """Makes a rule of a norm: weight -> scale."""

  def make(value, modality, *caught):
    del modality
    *caught, kind = caught
    words = [_INNER.get(c, c) for c in caught]
    leaf = 'scale' if kind == 'weight' else 'bias'
    return {f'{target.format(*words)}.{leaf}': value}

  return make


_INNER = {
  'attn.c_proj': 'o',
  'mlp.c_fc': 'up',
  'mlp.c_proj': 'down',
  'ln_1': 'norm1',
  'ln_2': 'norm2',
  'self_attn.q_proj': 'q',
  'self_attn.k_proj': 'k',
  'self_attn.v_proj': 'v',
  'self_attn.o_proj': 'o',
  'mlp.up_proj': 'up',
  'mlp.down_proj': 'down',
  'input_layernorm': 'norm1',
  'post_attention_layernorm': 'norm2',
}
_KIND = '(weight|bias)'
_RULES: tuple[tuple[str, Callable[..., Arrays]], ...] = (
  (rf'h\.(\d+)\.attn\.c_attn\.{_KIND}', _split),
  (
    rf'h\.(\d+)\.(attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.{_KIND}',
    _rule('blocks.{0}.{1}.{2}'),
  ),
  (rf'h\.(\d+)\.(ln_[12])\.{_KIND}', _norm('blocks.{0}.{1}')),
  (rf'ln_f\.{_KIND}', _norm('head.norm')),
  (r'wte\.weight', _rule('embed.{m}.w')),
  (r'wpe\.weight', _rule('embed.{m}.position')),
  (rf'lm_head\.{_KIND}', _rule('head.{0}', True)),
  (
    rf'model\.layers\.(\d+)\.(self_attn\.[qkvo]_proj|mlp\.(?:up|down)_proj)'
    rf'\.{_KIND}',
    _rule('blocks.{0}.{1}.{2}', True),
  ),
  (
    rf'model\.layers\.(\d+)\.(input_layernorm|post_attention_layernorm)'
    rf'\.{_KIND}',
    _norm('blocks.{0}.{1}'),
  ),
  (rf'model\.norm\.{_KIND}', _norm('head.norm')),
  (r'model\.embed_tokens\.weight', _rule('embed.{m}.w')),
  (r'model\.embed_positions\.weight', _rule('embed.{m}.position')),
)


def _complete(found: Arrays, every: Arrays, modality: str) -> None:
  """Adds what files of other libraries leave out because it is known.

  A tied head is the table of symbols; LLaMA's layers have no biases.
  """
  llama = any('embed_tokens.' in name for name in every)
  if not llama and not any('wte.' in name for name in every):
    return
  table = found.get(f'embed.{modality}.w')
  if table is not None:
    found.setdefault('head.w', table.T)
  if 'head.w' in found:
    found.setdefault('head.b', np.zeros(found['head.w'].shape[1], np.float32))
  for name in list(found) if llama else ():
    stem, _, leaf = name.rpartition('.')
    bias = {'w': 'b', 'scale': 'bias'}.get(leaf)
    if bias and not stem.startswith('embed.'):
      zeros = np.zeros(found[name].shape[-1], np.float32)
      found.setdefault(f'{stem}.{bias}', zeros)


def _check(path: str, found: Arrays, names: dict[str, Any]) -> None:
  """Refuses a file that does not fit, with all that is wrong in one line."""
  missing = [n for n in names if n not in found]
  unexpected = [n for n in found if n not in names]
  shapes = [
    f'{n} {list(found[n].shape)} for {list(leaf.shape)}'
    for n, leaf in names.items()
    if n in found and found[n].shape != leaf.shape
  ]
  wrong = [
    f'{kind} {", ".join(which[:_SHOWN])}'
    + (f' and {len(which) - _SHOWN} more' if len(which) > _SHOWN else '')
    for kind, which in (
      ('without', missing),
      ('with the unknown', unexpected),
      ('with shapes', shapes),
    )
    if which
  ]
  if wrong:
    raise InputError(
      f'config.model.weights={path} {"; ".join(wrong)}',
      f'the {len(names)} arrays of this model, by its own names, GPT-2 or '
      "LLaMA's",
      'choose config.model.transformer as the file is, or convert it',
    )
