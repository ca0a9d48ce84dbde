"""Records of what a model is cut down to: units, layers, experts, a split.

Shape letters as in types.py. A Task stands as Any here: it holds these records.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from relief_jax.task.work import Memory, Work
from relief_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Axes:
  """Describes the units along the axes of one parameter; no pytree, but a leaf.

  Attributes:
    units: per axis the number of a layer, or None where all of it is always
      kept, and how often the layer's units follow each other (a kernel's taps).
    output: the layer whose activations this parameter makes.
  """

  units: tuple[tuple[int | None, int], ...]
  output: int


class Widths(NamedTuple):
  """Describes the units of a model, for methods that keep some of every layer.

  Attributes:
    sizes: [L] ints, units of each hidden layer, then the classes.
    axes: P of Axes.
    work: [L] numbers of units kept, traced or not -> Work of that sub-model.
  """

  sizes: tuple[int, ...]
  axes: PyTree
  work: Callable[..., Work]


class Exits(NamedTuple):
  """Describes early exits: the model may end behind any layer of its encoders.

  At depth d = 1 .. `Task.cuts` it is the encoders' first d layers, pooled over
  time, and an exit: fusion, tail and head of its own. All depths share one
  tree of parameters and its groups. A method uses them so:

      sub = task.exits.until(d, False)                       # d is static
      device.loss(sub)                # at that exit
      sub.work                        # of `Plan.cost`, by `costs.stack`
      task.exits.contained(d, False)  # for `Plan.trained`, also of its cost

  It chooses between depths by a `lax.switch` over d, in which what lies above
  costs nothing; under a vmap all would run, so it takes the deepest, masked.
  Methods with exits say so in their facts; the config has no key.

  Attributes:
    contained: (d, every) -> [G] bools, the groups of the sub-model.
    until: (d, every) -> Task, the sub-model: `fuse` gives the logits of the
      exit at d, [B, C]; with `every` those of all exits up to it, [d, B, C],
      and `encode` a tuple of d features. `work` is of what then runs, its
      sizes are 0 beside the groups contained.
  """

  contained: Callable[[int, bool], Any]
  until: Callable[[int, bool], Any]


class SplitPoints(NamedTuple):
  """Describes where a model can be split between a device and a server; static.

  The device holds the first layers of every encoder, the server the rest. The
  first point may be before all layers: then inputs leave the device. At the
  last one the device holds the whole model.

  Attributes:
    layers: [S] ints, layers on the device; `Task.cuts` + 1 for all.
    held: [S][G] bools, blocks on the device.
    work: [S] Work of the device's part; sizes of the blocks held.
    sent: [S][M] bytes a sample of a modality that cross, activations up and, if
      a block below trains, as much of gradients down.
    memory: [S] Memory of the device's part; None where nobody has counted it.
    front: (s, params, frozen, inputs [M] of [B, ...], run [M], branch=False)
      -> z, what crosses at point number s (static); zeros of sensors that do
      not run, which are skipped with `branch`. At the last point logits.
    back: (s, params, frozen, z, run, branch=False) -> logits.
    shapes: [S][M] shapes of a sample's arrays that cross, in the order of z's
      leaves, of tokens those of the sensor; () where nobody has said, and no
      code of activations can be priced.
  """

  layers: tuple[int, ...]
  held: tuple[tuple[bool, ...], ...]
  work: tuple[Work, ...]
  sent: tuple[tuple[float, ...], ...]
  memory: tuple[Memory | None, ...]
  front: Callable[..., PyTree]
  back: Callable[..., Array]
  shapes: tuple[tuple[tuple[tuple[int, ...], ...], ...], ...] = ()


class LowRank(NamedTuple):
  """Describes the adapter of a linear layer, w + (alpha / R) a @ b; static.

  A layer whose input is the concatenation of all modalities has a factor `a`
  for each of them and one `b`.

  Attributes:
    a: names of the factors [i_m, R] among the parameters (`tree.named_leaves`
      with '/'), one at least.
    b: name of the factor [R, o].
    base: names of the weights [i_m, o] among what is frozen, as `a`.
  """

  a: tuple[str, ...]
  b: str
  base: tuple[str, ...]


class Ranks(NamedTuple):
  """Describes a model's adapters, for methods that cut, send or merge them.

  Attributes:
    layers: those that have adapters.
    rank: R, of the model; a device may have the first r columns of `a` and
      rows of `b`.
    alpha: of the scale: a product counts alpha / R.
    work: ([L] ints, a rank of every layer, each at least 1) -> Work of the same
      model with adapters of these ranks; sizes are R's.
  """

  layers: tuple[LowRank, ...]
  rank: int
  alpha: float
  work: Callable[[tuple[int, ...]], Work]

  @property
  def scale(self) -> float:
    """What a product a @ b of the model counts."""
    return self.alpha / self.rank


class Experts(NamedTuple):
  """Describes n mixtures of E experts each, for methods that choose; static.

  Probabilities are [B, ..., n, E], of samples or of their tokens; 0 of a token
  that is not there.

  Attributes:
    blocks: [n * E] ints, numbers of the experts' blocks, mixture by mixture.
    gates: [n] ints, numbers of the gates' blocks.
    top: k, experts that a sample, or token, is routed to.
    size: H, numbers that an expert reads, and makes.
    routing: forward FLOPs until the last gate has spoken; what else is in it
      means nothing.
    each: FLOPs of a sample, or token, in one expert, forward.
    work: [n] numbers of experts on a device, traced or not, among which alone
      the gates then route -> Work.
    fuse: as `Task.fuse` -> logits and probabilities.
    route: (params, {m: [B, d_m]}, run [M]) -> probabilities.
    weigh: probabilities -> weights, of k experts above 0, which add up to 1.
    counted: (probabilities, weight [B] or [B, ...]) -> [B, ..., n, 1] bool,
      tokens that are there and count.
    mean: ([B, ..., n, E], those marks) -> [n, E].
    balance: (probabilities, weight) -> [], the loss's term of equal use.
    within: (params, [n * E] bool) -> P whose gates route to those alone.
    outputs: (params, [A, H]) -> [n * E, A, H].
  """

  blocks: tuple[int, ...]
  gates: tuple[int, ...]
  top: int
  size: int
  routing: Work
  each: float
  work: Callable[[Any], Work]
  fuse: Callable[..., tuple[Array, Array]]
  route: Callable[..., Array]
  weigh: Callable[[Array], Array]
  counted: Callable[[Array, Array], Array]
  mean: Callable[[Array, Array], Array]
  balance: Callable[[Array, Array], Array]
  within: Callable[[PyTree, Array], PyTree]
  outputs: Callable[[PyTree, Array], Array]

  @property
  def number(self) -> int:
    """E."""
    return len(self.blocks) // len(self.gates)

  def apart(self, values: Any) -> Any:
    """Reshapes [..., n * E] to [..., n, E]."""
    return values.reshape(*values.shape[:-1], len(self.gates), self.number)


class SubModel(NamedTuple):
  """Holds the elements of the model that one device has.

  Attributes:
    mask: P bool; only these move, and the mean of an element is over the
      clients whose sub-model contains it.
    view: P -> P, the parameters that the forward pass sees.
  """

  mask: PyTree
  view: Callable[[PyTree], PyTree]
