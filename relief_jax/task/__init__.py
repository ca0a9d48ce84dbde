"""Shared records of models and rounds: what algorithms see.

Shape letters as in types.py.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from relief_jax.task.submodels import (
  Axes,
  Exits,
  Experts,
  LowRank,
  Ranks,
  SplitPoints,
  SubModel,
  Widths,
)
from relief_jax.task.work import Memory, Skip, TokenWork, Work
from relief_jax.types import Array, PyTree

__all__ = [
  'Axes',
  'Blocks',
  'CostOverride',
  'Exits',
  'Experts',
  'LowRank',
  'Memory',
  'Plan',
  'Ranks',
  'Skip',
  'SplitPoints',
  'SubModel',
  'Task',
  'TokenWork',
  'Widths',
  'Work',
]


class Blocks(NamedTuple):
  """Describes the blocks of a model; all static.

  A block is what is trained, averaged and sent as one.

  Attributes:
    name: [G].
    modality: [G] ints, whose sensor's owners have it; -1 for shared blocks.
    role: [G], what it does: `encoder`, `fusion` (the columns of a modality),
      `joint` (both), `exit` (of an early exit), `gate` and `expert` (of a
      mixture) or `head` (fusion tail and head).
    layers: [M, cuts] numbers of the blocks of an encoder's layers.
    trunk: numbers of the blocks of each layer that all modalities share,
      from the encoders to the head; () where there are none.
  """

  name: tuple[str, ...]
  modality: tuple[int, ...]
  role: tuple[str, ...]
  layers: tuple[tuple[int, ...], ...] = ()
  trunk: tuple[tuple[int, ...], ...] = ()

  @property
  def num(self) -> int:
    """G."""
    return len(self.name)

  def of(self, *roles: str) -> np.ndarray:
    """Finds the blocks of some roles, [G] bool."""
    return np.array([role in roles for role in self.role])

  @property
  def shared(self) -> np.ndarray:
    """Blocks that every device has, [G] bool."""
    return np.asarray(self.modality) < 0

  @property
  def always(self) -> np.ndarray:
    """Blocks that every device trains: shared ones, no trunk, [G] bool."""
    trunk = [g for layer in self.trunk for g in layer]
    return self.shared & ~np.isin(np.arange(self.num), trunk)


class Task(NamedTuple):
  """Describes a model and its loss, as algorithms see them.

  Attributes:
    modalities: names, in the order of every [M] axis.
    blocks: of the parameters, in the order of every [G] axis.
    groups: prefix tree of the parameters; leaves are numbers of blocks.
    work: FLOPs and sizes.
    init: key -> params.
    encode: (params, frozen, m, x [B, ...], cut) -> [B, d_m], features of
      modality number m; `cut` (static) freezes the encoder's layers below it.
    cuts: number of layers an encoder can be cut at; `cut == cuts` freezes all.
    fuse: (params, frozen, {m: [B, d_m]}, run [M]) -> [B, C] logits; a
      modality that is not there (at least one is) counts as zeros.
    skips: numbers of modalities for which `fuse` makes a program of its own,
      ascending to M; it takes a fifth argument, a `Skip` where one client is
      trained at a time, else None. (): it does not.
    submodels: kinds of smaller models that it can be cut down to, by name:
      `width` (Widths), `depth` (Exits), `rank` (Ranks) and `experts`
      (Experts), and a function Task -> SplitPoints by the name of `split`. With
      exits `encode`, `fuse` and
      `work` are those of the last exit alone, so that a budget means the same
      with and without.
    ends: prefix tree of the parameters, bool: the first and the last layer,
      which methods of few bits leave alone.
    classes: C; V of tokens, D of numbers.
    features: [M] ints d_m, numbers that an encoder makes of a window; () where
      they are no [B, d_m].
    base: key -> parameters that never train, `Population.frozen`; None: there
      are none.
    criterion: (logits [B, C], y [B], weight [B]) -> [], the training loss; None
      for softmax cross-entropy.
    targets: kind of what it predicts (scoring/targets.py); logits are [B, T, V]
      of tokens, and plain outputs [B, D] of numbers.
    memory: of a training step; None where nobody has counted it.
    by_batch: its output depends on the other samples of a batch (BatchNorm).
    penalty: (params, {m: features}, run [M], weight [B], y [B]) -> [], a term
      of the training loss beside the criterion; None: there is none.
    past: windows that an input of `encode` may begin with, in the order of
      time: [B, (past + 1) * time, ...]; without them it takes [B, time, ...].
    notes: what a reader of the results should know of it, a sentence each.
  """

  modalities: tuple[str, ...]
  blocks: Blocks
  groups: PyTree
  work: Work
  init: Callable[..., PyTree]
  encode: Callable[..., Array]
  cuts: int
  fuse: Callable[..., Array]
  submodels: Mapping[str, Any] = {}
  ends: PyTree = False
  classes: int = 0
  features: tuple[int, ...] = ()
  base: Callable[..., PyTree] | None = None
  criterion: Callable[..., Array] | None = None
  targets: str = 'classes'
  memory: Memory | None = None
  by_batch: bool = False
  notes: tuple[str, ...] = ()
  skips: tuple[int, ...] = ()
  penalty: Callable[..., Array] | None = None
  past: int = 0

  @property
  def num_blocks(self) -> int:
    """G."""
    return self.blocks.num

  @property
  def widths(self) -> Widths | None:
    """Its units, None where it has no narrower form."""
    return self.submodels.get('width')

  @property
  def ranks(self) -> Ranks | None:
    """Its adapters, None where it has none."""
    return self.submodels.get('rank')

  @property
  def experts(self) -> Experts | None:
    """Its mixture, None where it has none."""
    return self.submodels.get('experts')

  @property
  def exits(self) -> Exits | None:
    """Its early exits, None where it has none."""
    return self.submodels.get('depth')


# Of a device that trains with a server: seconds of one local step until its
# activations are there, at the server, of its last layers, and behind them; the
# number of steps; and bytes up and down in all of them.
STEP = ('ahead', 'server', 'middle', 'behind', 'steps', 'up', 'down')


class CostOverride(NamedTuple):
  """Holds prices of clients where they are not the whole model's.

  Attributes:
    work: [K] of every field, of each client's own sub-model; None: the model's.
    download: [K] bytes beside the groups that run, or None.
    received: [K, G] bool, groups that a device is sent, whole; None: those of
      what runs, and where `work` is its own, the parts of them that it sizes.
    sent: [K, G] bool, of the groups that are trained those that a device sends;
      None: all.
    upload: [K] bytes beside the groups that are sent, or None.
    flops: [K] FLOPs of the round beside its local steps, or None.
    waiting: [K] seconds that a device waits inside the round, or None.
    memory: [K] bytes of training, or None: of whole blocks.
    wire: [2, G] or [2, K, G] bytes of every group's message up and down, where
      the method codes them itself; None: the links do (updates/link.py).
    samples: [K] training samples of the round; None: of the setting.
    server_joules: [] energy of a server that computes a part of the model;
      None where it does not.
    steps: [K, 7] float32, `STEP`, of devices that train with a server step by
      step; None where they do not.
  """

  work: Work | None = None
  download: Array | None = None
  received: Array | None = None
  sent: Array | None = None
  upload: Array | None = None
  flops: Array | None = None
  waiting: Array | None = None
  memory: Array | None = None
  wire: Array | None = None
  samples: Array | None = None
  server_joules: Array | None = None
  steps: Array | None = None


class Plan(NamedTuple):
  """Holds the plan of a round: runs, training, weights; rows are clients.

  Attributes:
    run: [K, M] bool, branches in the forward pass (hence downloaded).
    trained: [K, G] bool, moved by local training, hence uploaded.
    counted: [K, G] float32, weight in the server's mean. FedAvg counts
      everybody, a cohort mean only the owners, RELIEF only the trainers.
    client_args: [K, ...] of every leaf, arguments of the method's client, such
      as its width.
    cost: other prices.
    private: [G] bool, blocks that stay on the devices and are sent in neither
      direction; None: there are none.
    held: [K, G] bool, blocks that a device holds; a server trains the others
      with it, step by step (rounds/split.py). None: all.
    batch: [K] int32, samples that a device takes of a batch; None: all.
  """

  run: Array
  trained: Array
  counted: Array
  client_args: PyTree = ()
  cost: CostOverride = CostOverride()
  private: Any = None
  held: Any = None
  batch: Array | None = None
