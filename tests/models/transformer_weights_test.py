"""Weights of a file: names of three families, and what does not fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from relief_jax import tree
from relief_jax.errors import InputError
from relief_jax.models import transformer, transformer_forward
from relief_jax.models.encoders import Spec
from relief_jax.scoring import targets

TEXT = Spec(
  modalities=('text',),
  channels=(1,),
  width=5,
  classes=11,
  inputs=((5,),),
  targets=targets.TOKENS,
  d=8,
  blocks=2,
  attention_heads=2,
)
X = np.array([[1, 2, 3, 4, 5], [10, 9, 8, 7, 6]], np.int32)


@functools.cache
def params():
  rng = np.random.default_rng(0)
  drawn = transformer_forward.init(jax.random.key(0), TEXT)
  drawn = jax.tree.map(
    lambda v: np.float32(v + 0.3 * rng.normal(size=v.shape)), drawn
  )
  drawn['head']['b'] = np.zeros(11, np.float32)
  drawn['head']['w'] = drawn['embed']['text']['w'].T
  return drawn


@functools.cache
def unbiased():
  """The same without biases, as LLaMA has none."""
  return jax.tree_util.tree_map_with_path(
    lambda path, v: 0 * v if path[-1].key in ('b', 'bias') else v, params()
  )


def logits(task, own, frozen):
  found = {'text': task.encode(own, frozen, 0, jnp.asarray(X), 0)}
  return np.asarray(task.fuse(own, frozen, found, jnp.ones(1, bool)))


def gpt2():
  """As GPT-2's file: q, k and v in one, a tied head, a mask beside them."""
  found = {
    'transformer.wte.weight': params()['embed']['text']['w'],
    'transformer.wpe.weight': params()['embed']['text']['position'],
  }
  names = {'o': 'attn.c_proj', 'up': 'mlp.c_fc', 'down': 'mlp.c_proj'}
  for i, block in enumerate(params()['blocks']):
    at = f'transformer.h.{i}.'
    for leaf, kind in (('w', 'weight'), ('b', 'bias')):
      joined = np.concatenate([block[n][leaf] for n in 'qkv'], -1)
      found[f'{at}attn.c_attn.{kind}'] = joined
      for own, theirs in names.items():
        found[f'{at}{theirs}.{kind}'] = block[own][leaf]
    for n in '12':
      found[f'{at}ln_{n}.weight'] = block[f'norm{n}']['scale']
      found[f'{at}ln_{n}.bias'] = block[f'norm{n}']['bias']
    found[f'{at}attn.bias'] = np.tril(np.ones((5, 5), np.float32))
  found['transformer.ln_f.weight'] = params()['head']['norm']['scale']
  found['transformer.ln_f.bias'] = params()['head']['norm']['bias']
  return found


def llama():
  """As LLaMA's names, [out, in] and without biases."""
  own = unbiased()
  found = {
    'model.embed_tokens.weight': own['embed']['text']['w'],
    'model.embed_positions.weight': own['embed']['text']['position'],
    'model.norm.weight': own['head']['norm']['scale'],
    'lm_head.weight': own['head']['w'].T,
  }
  for i, block in enumerate(own['blocks']):
    at = f'model.layers.{i}.'
    for n in 'qkvo':
      found[f'{at}self_attn.{n}_proj.weight'] = block[n]['w'].T
    for n in ('up', 'down'):
      found[f'{at}mlp.{n}_proj.weight'] = block[n]['w'].T
    found[f'{at}input_layernorm.weight'] = block['norm1']['scale']
    found[f'{at}post_attention_layernorm.weight'] = block['norm2']['scale']
  return found


def ours(prefix):
  named = tree.named_leaves(params()).items()
  return {f'{prefix}{k}': v for k, v in named}


def written(tmp_path, arrays):
  path = tmp_path / 'weights.safetensors'
  whole = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
  safetensors.numpy.save_file(whole, path)
  return TEXT._replace(weights=str(path))


FILES = {
  'ours': (functools.partial(ours, ''), params),
  'exported': (functools.partial(ours, 'params.'), params),
  'gpt2': (gpt2, params),
  'llama': (llama, unbiased),
}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(n, marks=pytest.mark.slow if n == 'ours' else ())
    for n in FILES
  ],
)
def test_names_of_other_libraries(name, tmp_path):
  arrays, want = FILES[name]
  spec = written(tmp_path, arrays())
  bare = transformer.transformer(TEXT)
  task = transformer.transformer(spec)
  own = task.init(jax.random.key(3))
  np.testing.assert_allclose(
    logits(task, own, {}), logits(bare, want(), {}), atol=1e-5
  )
  # With adapters they are the base, and at first nothing else.
  low = transformer.transformer(spec._replace(lora=('q', 'up'), base_head=True))
  start, base = low.init(jax.random.key(3)), low.base(jax.random.key(4))
  np.testing.assert_allclose(
    logits(low, start, base), logits(bare, want(), {}), atol=1e-5
  )
  assert set(start['blocks'][0]) == {'q', 'up'}


def test_a_file_without_a_head_is_told_of(tmp_path):
  arrays = {k: v for k, v in ours('').items() if not k.startswith('head')}
  (note,) = transformer.transformer(written(tmp_path, arrays)).notes
  assert 'a fresh one is trained' in note


def gated():
  found = llama()
  del found['model.embed_positions.weight']
  return found | {'model.layers.0.mlp.gate_proj.weight': np.ones((32, 8))}


def misshapen():
  found = gpt2()
  found['transformer.wpe.weight'] = np.ones((1024, 8), np.float32)
  return found


@pytest.mark.parametrize(
  ('arrays', 'messages'),
  [
    (gated, ('without embed.text.position', 'mlp.gate_proj')),
    (misshapen, (r'embed.text.position \[1024, 8\] for \[5, 8\]',)),
    (lambda: {'x': np.ones(2)}, ('and 28 more', 'the unknown x')),
  ],
)
def test_a_file_that_does_not_fit(arrays, messages, tmp_path):
  for message in messages:
    with pytest.raises(InputError, match=message) as error:
      transformer.transformer(written(tmp_path, arrays()))
    assert '\n' not in str(error.value)


def test_no_safetensors_file(tmp_path):
  path = tmp_path / 'weights.safetensors'
  path.write_bytes(b'no such thing')
  with pytest.raises(InputError, match='weights.safetensors'):
    transformer.transformer(TEXT._replace(weights=str(path)))
