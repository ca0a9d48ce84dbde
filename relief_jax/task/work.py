"""Records of what training a model costs: FLOPs, sizes, memory.

Shape letters as in types.py.
"""

from typing import Any, NamedTuple

import flax

from relief_jax.types import Array


@flax.struct.dataclass
class TokenWork:
  """Holds FLOPs per sample of layers that mix the modalities' tokens.

  With a share s of the tokens there they cost `[s, s^2] @` each field: layers
  of a token grow with their number, attention between them with its square.

  Attributes:
    share: [M] of all tokens that are a modality's; they add up to 1.
    shared: [2], of the forward pass.
    wgrad: [2, G].
    agrad: [2, Q].
  """

  share: Array
  shared: Array
  wgrad: Array
  agrad: Array


@flax.struct.dataclass
class Work:
  """Holds FLOPs per sample of a model's parts, from its real shapes.

  A step that runs branches `run` and trains groups `train` costs
  `shared + fwd @ run + wgrad @ train + agrad @ any(path & train)`.

  Attributes:
    shared: [] forward FLOPs of what every device runs (fusion tail, head).
    fwd: [M] forward FLOPs of a modality's branch, frozen parts included.
    wgrad: [G] FLOPs of a group's own weight gradient.
    agrad: [Q] FLOPs of passing the gradient through one layer to its input.
    path: [Q, G] bool, training group g needs that pass.
    size: [G] float32, numbers in a group; what is sent when it is trained.
    tokens: what depends on how many modalities run (`costs.of_run`), beside
      the others; None: nothing does.
  """

  shared: Array
  fwd: Array
  wgrad: Array
  agrad: Array
  path: Array
  size: Array
  tokens: TokenWork | None = None


class Memory(NamedTuple):
  """Holds bytes of a training step beside the blocks' own, static.

  A step that trains groups `train` keeps `kept @ any(readers & train)` bytes a
  sample for its backward pass (`costs.training_bytes`).

  Attributes:
    fixed: [] bytes of what never trains.
    working: [] bytes a sample of the largest operation of the forward pass.
    kept: [H] bytes a sample of activations.
    readers: [H, G] bool, training group g reads them in its backward pass.
  """

  fixed: Any
  working: Any
  kept: Any
  readers: Any


class Skip(NamedTuple):
  """Says what `Task.fuse` may leave out for one client.

  Attributes:
    train: [G] bool, blocks whose gradients are asked for.
    length: number of modalities that run (static), or None where it is not
      known before the program runs.
  """

  train: Array
  length: int | None = None
