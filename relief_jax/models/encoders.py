"""Builds the models' shared parts: CNN encoders, fusion, FLOPs, groups."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.errors import InputError
from relief_jax.models import layers
from relief_jax.models.dual_health import Dual
from relief_jax.models.mixture import Mixture
from relief_jax.models.work_builder import WorkBuilder
from relief_jax.scoring import targets
from relief_jax.task import Blocks
from relief_jax.types import Array, PyTree


class Spec(NamedTuple):
  """Describes a model; static.

  Attributes:
    modalities: names.
    channels: [M] channels of each.
    width: samples in a window.
    classes: C; tokens V of texts, numbers D of a regression.
    filters: features of the encoder's convolutions; the last is d_m.
    kernel: taps of a convolution.
    stride: of a convolution.
    hidden: d_out of the fusion.
    rank: r of LoRA.
    lora_alpha: alpha of LoRA; its product is scaled by alpha / r.
    groups: `split` (encoder and column block apart), `joint` (one group per
      modality) or `layer` (the encoder's layers apart too).
    adapters: LoRA inside the frozen encoders.
    base_head: the frozen base has a head, to which the trained one is added.
    cached: the bank holds frozen features instead of windows.
    fusion_norm: z times M / (modalities present), **ours**.
    exits: an exit behind every layer of the encoders (cnn only); `split`
      then means `layer`, since an exit lies between any two.
    fusion: `concat` (columns of one layer, hence a sum), `mean` (that sum over
      the modalities that are there, by their number), `attention`,
      `dual_health_style` (both of which weigh them), or `experts` (the sum,
      then a mixture of experts).
    heads: of the attention.
    dual: of `dual_health_style`.
    mixture: sizes of the experts.
    inputs: [M] shapes of an input of each modality, where these are no windows
      [width, channels]; () else.
    d: of the transformer, its width.
    blocks: of it, L.
    attention_heads: of it.
    patch: of it, samples of a token; of an image the side of one.
    lora: of it, patterns of the linear layers that have adapters beside a
      frozen base (models/lora_layers.py); (): all parameters train.
    weights: of it, the .safetensors file that it starts from, '' for none.
    targets: kind of what is predicted (scoring/targets.py). Inputs of tokens
      are tokens too, int32 [T].
    vocabulary: V of texts that have a class each, int32 [T], below 0 for no
      token; 0 else.
  """

  modalities: tuple[str, ...]
  channels: tuple[int, ...]
  width: int
  classes: int
  filters: tuple[int, ...] = (32, 64)
  kernel: int = 5
  stride: int = 2
  hidden: int = 128
  rank: int = 8
  lora_alpha: float = 16.0
  groups: str = 'split'
  adapters: bool = False
  base_head: bool = False
  cached: bool = False
  fusion_norm: bool = False
  exits: bool = False
  fusion: str = 'concat'
  heads: int = 4
  dual: Dual = Dual()
  mixture: Mixture = Mixture()
  inputs: tuple[tuple[int, ...], ...] = ()
  d: int = 64
  blocks: int = 4
  attention_heads: int = 4
  patch: int = 16
  lora: tuple[str, ...] = ()
  weights: str = ''
  targets: str = targets.CLASSES
  vocabulary: int = 0

  @property
  def averages(self) -> bool:
    """Whether the fusion is a mean, weighted or not."""
    return self.fusion in ('mean', 'attention', 'dual_health_style')

  @property
  def text(self) -> bool:
    """Whether inputs are tokens."""
    return self.vocabulary > 0 or self.next_token

  @property
  def next_token(self) -> bool:
    """Whether outputs are tokens too: those that follow."""
    return self.targets == targets.TOKENS

  @property
  def symbols(self) -> int:
    """V, tokens that an input may hold."""
    return self.vocabulary or self.classes

  @property
  def example(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of one input of each modality, {modality: [1, *S]}."""
    shapes = self.inputs or tuple((self.width, c) for c in self.channels)
    kind = jnp.int32 if self.text else jnp.float32
    return {
      m: jax.ShapeDtypeStruct((1, *shape), kind)
      for m, shape in zip(self.modalities, shapes, strict=True)
    }

  @property
  def features(self) -> int:
    """d_m, the same for every modality."""
    return self.filters[-1]

  def lengths(self) -> list[int]:
    """Computes the length before the first and after every convolution.

    Raises:
      InputError: inputs that are no windows, or too short for the
        convolutions.
    """
    if self.inputs:
      raise InputError(
        f'inputs of shape {list(self.inputs[0])} for a model of windows',
        'windows [time, channels]',
        'name a model of your own: --config.backbone=FILE.py:ATTRIBUTE',
      )
    found = [self.width]
    for _ in self.filters:
      found.append(layers.conv_length(found[-1], self.kernel, self.stride))
    if found[-1] < 1:
      raise InputError(
        f'windows of {self.width} samples',
        f'enough for {len(self.filters)} convolutions of {self.kernel} taps '
        f'and stride {self.stride}',
        'raise config.data.width or lower config.model.stride',
      )
    return found


def init_encoder(key: Array, spec: Spec, m: int) -> list[dict[str, Array]]:
  """Draws one {'w': [c_out, kernel * c_in], 'b': [c_out]} per convolution."""
  sizes = (spec.channels[m],) + spec.filters
  keys = jax.random.split(key, len(spec.filters))
  return [
    {
      'w': layers.dense_init(k, spec.kernel * a, b).T,
      'b': jnp.zeros(b),
    }
    for k, a, b in zip(keys, sizes, sizes[1:], strict=False)
  ]


def encode(spec: Spec, encoder, x: Array, cut: int, adapters=None) -> Array:
  """Encodes windows by phi_m, [B, T, c] -> [B, d_m]; see `activations`."""
  *_, last = activations(spec, encoder, x, cut, adapters)
  return last.mean(1)


def activations(spec: Spec, encoder, x: Array, cut: int, adapters=None):
  """Computes the output of every convolution, one after another, [B, L, f].

  Args:
    spec: of the model.
    encoder: from `init_encoder`.
    x: windows.
    cut: layers below it are frozen (static).
    adapters: None, or one {'a', 'b'} per convolution, added unmerged.
  """
  scale = spec.lora_alpha / spec.rank
  for i, layer in enumerate(encoder):
    own = layers.stop_below(layer, i < cut)
    size = spec.kernel, spec.stride
    if adapters is None:
      x = layers.conv1d_relu(x, own['w'], own['b'], *size)
    else:
      low = layers.stop_below(adapters[i], i < cut)
      y = layers.conv1d(x, own['w'], *size)
      y += scale * (layers.conv1d(x, low['a'], *size) @ low['b'])
      x = jax.nn.relu(layers.bias(y, own['b']))
    yield x


def fuse_norm(spec: Spec, z: Array, run: Array) -> Array:
  """Scales z by M / (modalities present) where the option is on."""
  if not spec.fusion_norm:
    return z
  return z * (run.size / jnp.maximum(run.sum(), 1))


def head(params: PyTree, z: Array) -> Array:
  """Computes class scores from the activated fusion, [B, h] -> [B, C]."""
  return layers.bias(jax.nn.relu(z) @ params['w'], params['b'])


def init_head(key: Array, spec: Spec) -> dict[str, Array]:
  """Draws small weights, so that the first loss is close to log C."""
  w = layers.dense_init(key, spec.hidden, spec.classes)
  return {'w': 0.1 * w, 'b': jnp.zeros(spec.classes)}


class ExitGroups(NamedTuple):
  """Holds the groups of one exit.

  Attributes:
    column: [M] of the fusion's column blocks.
    shared: of the tail and the head.
  """

  column: tuple[int, ...]
  shared: int


class Numbering(NamedTuple):
  """Holds the group of every part of a model.

  Attributes:
    layer: [M][layers] groups of the encoder's layers; () if none trains.
    column: [M] groups of the fusion's column blocks.
    shared: group of the tail and the head.
    names: [G].
    modality: [G], -1 for shared.
    role: [G], as in `task.Blocks`.
    exits: {depth: groups of the exit there}; the last layer always has one.
    gate: (the group of the experts' gate,), () without.
    expert: [E] groups of the experts.
  """

  layer: tuple[tuple[int, ...], ...]
  column: tuple[int, ...]
  shared: int
  names: tuple[str, ...]
  modality: tuple[int, ...]
  role: tuple[str, ...]
  exits: dict[int, ExitGroups]
  gate: tuple[int, ...] = ()
  expert: tuple[int, ...] = ()

  def blocks(self, depth: int | None = None) -> Blocks:
    """Gives the blocks of a model with the first `depth` layers, or all."""
    layers = tuple(owners[:depth] for owners in self.layer)
    trunk = (self.expert,) if self.expert else ()
    return Blocks(self.names, self.modality, self.role, layers, trunk)


def number_groups(spec: Spec, encoders_train: bool) -> Numbering:
  """Numbers the groups: encoders, early exits, columns, experts, shared."""
  names: list[str] = []
  modality: list[int] = []
  roles: list[str] = []

  def new(name, m, role):
    names.append(name)
    modality.append(m)
    roles.append(role)
    return len(names) - 1

  depth = len(spec.filters)
  layer, column = [], []
  kind = spec.groups
  for m, name in enumerate(spec.modalities):
    if kind == 'joint':
      g = new(name, m, 'joint')
      layer.append((g,) * depth if encoders_train else ())
      column.append(g)
    elif not encoders_train:
      layer.append(())
    elif kind == 'split' and not spec.exits:
      layer.append((new(f'encoder/{name}', m, 'encoder'),) * depth)
    else:
      layer.append(
        tuple(new(f'encoder{i}/{name}', m, 'encoder') for i in range(depth))
      )
  exits = {}
  for i in range(depth - 1 if spec.exits else 0):
    own = [
      new(f'exit{i}/{name}', m, 'exit')
      for m, name in enumerate(spec.modalities)
    ]
    exits[i + 1] = ExitGroups(tuple(own), new(f'exit{i}', -1, 'exit'))
  if kind != 'joint':
    column = [
      new(f'fusion/{name}', m, 'fusion')
      for m, name in enumerate(spec.modalities)
    ]
  gate: tuple[int, ...] = ()
  expert: tuple[int, ...] = ()
  if spec.fusion == 'experts':
    gate = (new('gate', -1, 'gate'),)
    numbers = range(spec.mixture.number)
    expert = tuple(new(f'expert/{e}', -1, 'expert') for e in numbers)
  shared = new('shared', -1, 'head')
  exits[depth] = ExitGroups(tuple(column), shared)
  return Numbering(
    tuple(layer),
    tuple(column),
    shared,
    tuple(names),
    tuple(modality),
    tuple(roles),
    exits,
    gate,
    expert,
  )


def encoder_work(
  spec: Spec,
  number: Numbering,
  work: WorkBuilder,
  m: int,
  filters=None,
  pooled: Sequence[int] = (),
) -> None:
  """Adds encoder m: forward, weight gradients, gradients between layers.

  Args:
    spec: of the model.
    number: its groups.
    work: is added to.
    m: number of the modality.
    filters: of a narrower or shorter encoder, None for the spec's.
    pooled: depths behind which its activations are pooled, beside the last.

  Elementwise work is counted once per element and operation, as the compiler
  counts it before it fuses (a fusion may compute an element once per reader).
  """
  if spec.cached:
    return
  lengths = spec.lengths()
  sizes = (spec.channels[m], *(filters or spec.filters))
  owners = number.layer[m]
  for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
    after = lengths[i + 1]
    small = after * b
    # The input's gradient adds up that of the columns (layers.conv1d).
    more = -(-spec.kernel // spec.stride) - 1
    adds = more * (after + more) * spec.stride * a
    work.fwd[m] += layers.conv_flops(after, spec.kernel, a, b)
    # Bias, ReLU; layers.conv1d_relu compares and chooses.
    work.fwd[m] += (2 if spec.adapters else 3) * small
    last = i == len(sizes) - 2
    early = i + 1 in pooled and not last
    if last or early:
      work.fwd[m] += small  # mean over time
    if not owners:
      continue
    back = layers.conv_flops(after, spec.kernel, a, b) + adds
    through = 2 * small  # ReLU
    if early:
      through += small  # both gradients of the activations added
    if spec.adapters:
      down = layers.conv_flops(after, spec.kernel, a, spec.rank)
      up = layers.conv_flops(after, 1, spec.rank, b)
      work.fwd[m] += down + up + 2 * small  # scaled and added
      work.wgrad[owners[i]] += down + up
      through += up + small  # A and what is below get the gradient through B
      back += layers.conv_flops(after, spec.kernel, a, spec.rank) + adds
      back += lengths[i] * a  # both gradients of the input added
    else:
      work.wgrad[owners[i]] += layers.conv_flops(after, spec.kernel, a, b)
      work.wgrad[owners[i]] += small  # bias
    work.gradient_path(through, owners[: i + 1])
    work.gradient_path(back, owners[:i])


def dense_flops(fan_in: int, fan_out: int) -> float:
  """Counts the FLOPs of one pass of a matrix product per sample."""
  return 2.0 * fan_in * fan_out
