"""Builds one small pre-LN transformer for sensors, text and image patches.

    tokens   sensors: patches of `patch` samples -> Linear(patch * c_m -> d)
             images: square patches of side `patch` -> Linear(patch^2 c -> d)
             text: a row of a table for every symbol; each plus its position
    block    h = x + Wo attn(q, k, v of LN(x)),  y = h + W2 gelu(W1 LN(h))
             or of the last blocks y = h + the experts of LN(h) (experts.py)
    head     the mean of the tokens that are there -> LN -> Linear(d -> C);
             where the next token of text is predicted every position's own,
             and no token sees a later one

Tokens of a sensor that is not there are masked in attention and in the mean,
and where one client is trained at a time they are not computed, but for models
with experts. **Ours**: a modality has positions of its own, which are its
embedding at once, so that all that knows of a sensor is in the block of its
owners.

With `Spec.lora` a base is frozen, chosen linear layers get adapters, and the
head trains. The embeddings are one layer whose input is the concatenation of
all sensors: its adapter's `a` is cut by columns, its `b` is shared.

Blocks have leaves of their own, and are not stacked along an axis: what is
trained, averaged, coded and sent is chosen by leaf, and unrolled both forms
take the same time.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.engine import ambient
from relief_jax.errors import InputError
from relief_jax.models import (
  criteria,
  experts,
  layers,
  lora_layers,
  transformer_experts,
  transformer_split,
  transformer_weights,
)
from relief_jax.models import transformer_forward as forward
from relief_jax.models import transformer_work as count
from relief_jax.models.encoders import Spec
from relief_jax.models.transformer_forward import Cut
from relief_jax.scoring import targets
from relief_jax.task import Blocks, LowRank, Ranks, Task
from relief_jax.types import Array, PyTree


class Preset(NamedTuple):
  """Holds sizes by name.

  Attributes:
    d: width.
    blocks: L.
    heads: H.
    tokens: that a window is cut into.
  """

  d: int
  blocks: int
  heads: int
  tokens: int = 8


PRESETS = {
  'tiny': Preset(32, 3, 4, 4),
  'sensor': Preset(64, 4, 4),
  'char': Preset(64, 4, 4),
  'char_long': Preset(96, 6, 6),
}
_SIDE = 4  # of an image's patch


def sizes(options: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
  """Finds the sizes of a model, as fields of `Spec`.

  Args:
    options: `config.model.transformer`; 0 stands for the preset's.
    shape: of an input of the first modality.
  """
  preset = PRESETS[options['preset']]
  usual = _SIDE if len(shape) > 2 else -(-shape[0] // preset.tokens)
  return {
    'd': options['d'] or preset.d,
    'blocks': options['blocks'] or preset.blocks,
    'attention_heads': options['heads'] or preset.heads,
    'patch': options['patch'] or usual,
  }


def transformer(spec: Spec) -> Task:
  """Builds the task: all parameters train, or with `spec.lora` adapters.

  Args:
    spec: of the model.

  Raises:
    InputError: sizes, patterns or a file of weights that do not fit.
  """
  _check(spec)
  return _transformer(spec, transformer_weights.stamp(spec.weights))


def whole(spec: Spec) -> tuple[Task, Callable[[PyTree], PyTree]]:
  """Gives the model whose parameters the frozen base is, and what freezes it.

  Args:
    spec: of the model with adapters.
  """
  full = transformer(spec._replace(lora=(), weights=''))
  return full, functools.partial(freeze, head=spec.base_head)


def freeze(params: PyTree, head: bool) -> PyTree:
  """Takes the frozen base from all parameters, with its head or without."""
  kept = ('embed', 'blocks') + ('head',) * head
  return {k: params[k] for k in kept}


@functools.lru_cache(maxsize=8)
def _transformer(spec: Spec, stamp: Any) -> Task:
  """Builds it once; a changed file of weights is another `stamp`."""
  del stamp
  adapted = lora_layers.chosen(_linear(spec), spec.lora) if spec.lora else None
  numbers = _Numbers(spec, adapted)
  given: PyTree = {}
  notes: tuple[str, ...] = ()
  if spec.weights:
    like = jax.eval_shape(lambda: forward.init(ambient.key(0), spec))
    given, notes = transformer_weights.load(
      spec.weights, like, adapted is not None and not spec.base_head
    )

  def start(key):
    params = {**forward.init(key, spec), **given}
    return params if adapted is None else _adapters(key, spec, params, adapted)

  def base(key):
    return freeze({**forward.init(key, spec), **given}, spec.base_head)

  shapes = jax.eval_shape(lambda: start(ambient.key(0)))
  cut, groups = numbers.cut, numbers.groups
  classes = spec.targets == targets.CLASSES
  size = tree.group_sizes(groups, shapes, len(numbers.names))
  return Task(
    modalities=spec.modalities,
    blocks=numbers.blocks(),
    groups=groups,
    work=transformer_split.work(spec, cut, len(numbers.names), size),
    init=start,
    encode=functools.partial(forward.encode, spec, cut),
    cuts=1,
    fuse=functools.partial(forward.fuse, spec, cut),
    submodels=_submodels(spec, adapted, cut, size),
    ends={
      part: jax.tree.map(lambda _, part=part: part != 'blocks', own)
      for part, own in groups.items()
    },
    classes=spec.classes,
    base=None if adapted is None else base,
    criterion=None if classes else criteria.find('', spec.targets).criterion,
    targets=spec.targets,
    notes=notes,
    skips=_skips(spec),
  )


def _submodels(
  spec: Spec, adapted: tuple[str, ...] | None, cut: Cut, size: Array
) -> dict[str, Any]:
  """Describes what it can be cut down to."""
  if cut.mixed:
    return {'experts': transformer_experts.described(spec, cut, size)}
  points = functools.partial(transformer_split.points, spec, cut)
  if adapted is None:
    return {'split': points}
  return {'split': points, 'rank': _ranks(spec, adapted, cut, size)}


def _ranks(
  spec: Spec, adapted: tuple[str, ...], cut: Cut, size: Array
) -> Ranks:
  """Describes the adapters."""

  def work(each):
    own = dict(zip(adapted, each, strict=True))
    blocks = tuple(
      block._replace(ranks={n: own[f'blocks/{i}/{n}'] for n in block.linear})
      for i, block in enumerate(cut.blocks)
    )
    embedded = spec._replace(rank=own.get('embed', spec.rank))
    low = cut._replace(blocks=blocks)
    return transformer_split.work(embedded, low, len(size), size)

  found = []
  for path in adapted:
    parts = [(f'{path}/a', f'{path}/w')]
    if path == 'embed':
      parts = [(f'embed/a/{m}', f'embed/{m}/w') for m in spec.modalities]
    a, base = zip(*parts, strict=True)
    found.append(LowRank(a, f'{path}/b', base))
  return Ranks(
    tuple(found),
    spec.rank,
    spec.lora_alpha,
    work=work,
  )


def _skips(spec: Spec) -> tuple[int, ...]:
  """Lists the numbers of modalities whose tokens alone make a shorter program.

  Which of them run is known only to the program: they must be as many of each.
  With experts there is the whole one alone: each has a branch for every expert,
  and compiling them takes minutes.
  """
  count = len(spec.modalities)
  if spec.mixture.blocks:
    return (count,)
  alike = len({forward.patches(spec, m)[0] for m in range(count)}) == 1
  return tuple(range(1, count + 1)) if alike else (count,)


def _check(spec: Spec) -> None:
  """Refuses sizes that do not fit together."""
  if spec.d % spec.attention_heads:
    raise InputError(
      f'a width of {spec.d} for {spec.attention_heads} heads',
      'as many numbers for each',
      'set --config.model.transformer.d to a multiple of the heads',
    )
  flat = [m for m, v in spec.example.items() if v.ndim < 3]
  if flat and not spec.text:
    raise InputError(
      f'{flat[0]}, whose inputs are {list(spec.example[flat[0]].shape[1:])}, '
      'for the transformer',
      'windows [time, channels], images or text, of which tokens can be made',
      'take another --config.backbone',
    )
  longest = max(max(v.shape[1:]) for v in spec.example.values())
  if not spec.text and spec.patch > longest:
    raise InputError(
      f'patches of {spec.patch} samples of inputs of {longest}',
      'at most the whole input',
      'lower --config.model.transformer.patch, or 0 for the preset',
    )
  if spec.mixture.blocks:
    transformer_experts.check(spec)


def _linear(spec: Spec) -> tuple[str, ...]:
  """Lists the linear layers that may have adapters."""
  each = [f'blocks/{i}/{n}' for i in range(spec.blocks) for n in count.LINEAR]
  return ('embed', *each)


def _adapters(key, spec: Spec, params, adapted) -> PyTree:
  """Draws what trains beside a frozen base."""
  low_key = jax.random.fold_in(key, 1)
  found: PyTree = {'blocks': []}
  if 'embed' in adapted:
    embed_key = jax.random.fold_in(low_key, spec.blocks)
    a = {}
    for m, name in enumerate(spec.modalities):
      own = jax.random.fold_in(embed_key, m)
      fan_in = params['embed'][name]['w'].shape[0]
      a[name] = layers.dense_init(own, fan_in, spec.rank)
    found['embed'] = {'a': a, 'b': jnp.zeros((spec.rank, spec.d))}
  for i, block in enumerate(params['blocks']):
    keys = jax.random.split(jax.random.fold_in(low_key, i), len(count.LINEAR))
    found['blocks'].append(
      {
        name: lora_layers.adapter(k, block[name]['w'].shape, spec.rank)
        for k, name in zip(keys, count.LINEAR, strict=True)
        if f'blocks/{i}/{name}' in adapted
      }
    )
  head = params['head']
  return {**found, 'head': lora_layers.zero_head(head, spec.base_head)}


class _Numbers:
  """Numbers the groups: embeddings, then blocks, then the head."""

  def __init__(self, spec: Spec, adapted: tuple[str, ...] | None):
    self.names: list[str] = []
    self.modality: list[int] = []
    self.role: list[str] = []
    self.trunk: list[tuple[int, ...]] = []
    self.spec = spec
    self.groups: PyTree = {}
    embeds = [
      self._new(f'embed/{name}', m, 'joint')
      for m, name in enumerate(spec.modalities)
      if adapted is None or 'embed' in adapted
    ]
    own = dict(zip(spec.modalities, embeds, strict=bool(embeds)))
    low = None
    if adapted is None:
      self.groups['embed'] = own
    elif embeds:
      low = self._new('embed', -1, 'trunk')
      self.groups['embed'] = {'a': own, 'b': low}
      self.trunk.append((low,))
    blocks, self.groups['blocks'] = [], []
    for i in range(spec.blocks):
      one = self._full(i) if adapted is None else self._low(i, adapted)
      blocks.append(one)
    head = self._new('head', -1, 'head')
    self.groups['head'] = head
    self.cut = Cut(tuple(embeds), low, tuple(blocks), head, adapted is not None)

  def _new(self, name: str, m: int, role: str) -> int:
    self.names.append(name)
    self.modality.append(m)
    self.role.append(role)
    return len(self.names) - 1

  def _full(self, i: int) -> count.Trained:
    """Numbers a block that trains: one group, or attention and MLP apart."""
    if i >= self.spec.blocks - self.spec.mixture.blocks:
      return self._mixed(i)
    if self.spec.groups == 'layer':
      halves = 'attention', 'mlp'
      first, second = (self._new(f'block{i}/{h}', -1, 'trunk') for h in halves)
      self.trunk += [(first,), (second,)]
    else:
      first = second = self._new(f'block{i}', -1, 'trunk')
      self.trunk.append((first,))
    linear = {n: first for n in ('q', 'k', 'v', 'o')}
    linear |= {n: second for n in ('up', 'down')}
    self.groups['blocks'].append({**linear, 'norm1': first, 'norm2': second})
    return count.Trained(linear, {}, (first, second))

  def _mixed(self, i: int) -> count.Trained:
    """Numbers a block of experts: the attention, the gate, each expert."""
    spec, apart = self.spec, self.spec.groups == 'layer'
    first = self._new(
      f'block{i}/attention' if apart else f'block{i}', -1, 'trunk'
    )
    gate = self._new(f'block{i}/gate', -1, 'gate')
    expert = tuple(
      self._new(f'block{i}/expert/{e}', -1, 'expert')
      for e in range(spec.mixture.number)
    )
    self.trunk += [(first,), expert]
    linear = dict.fromkeys(count.ATTENTION, first)
    norms = {'norm1': first, 'norm2': first}
    self.groups['blocks'].append(
      {**linear, **norms, **experts.groups(gate, expert)}
    )
    own = transformer_experts.layer(spec, gate, expert)
    return count.Trained(linear, {}, (first, first), own)

  def _low(self, i: int, adapted) -> count.Trained:
    """Numbers the adapters of a block, a group each."""
    linear = {
      name: self._new(f'block{i}/{name}', -1, 'trunk')
      for name in count.LINEAR
      if f'blocks/{i}/{name}' in adapted
    }
    if linear:
      self.trunk.append(tuple(linear.values()))
    self.groups['blocks'].append(linear)
    return count.Trained(linear, dict.fromkeys(linear, self.spec.rank))

  def blocks(self) -> Blocks:
    """Describes them."""
    embed = self.cut.embed or ((),) * len(self.spec.modalities)
    return Blocks(
      tuple(self.names),
      tuple(self.modality),
      tuple(self.role),
      tuple((g,) if isinstance(g, int) else () for g in embed),
      tuple(self.trunk),
    )
