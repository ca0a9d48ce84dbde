"""Finds the blocks of a user's model: names, modalities, roles, layers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from relief_jax.errors import InputError, unknown
from relief_jax.models import patterns
from relief_jax.models.patterns import Patterns
from relief_jax.task import Blocks
from relief_jax.types import Array, PyTree


class Stage(NamedTuple):
  """Describes a part of a model.

  Attributes:
    prefix: of its parameters' names; '' for all or none.
    apply: ({path below it: parameter}, what comes in) -> what goes out.
  """

  prefix: str
  apply: Callable[..., PyTree]


class Model(NamedTuple):
  """Describes a model as pure functions.

  Attributes:
    init: key -> {path: parameter}.
    encoders: [M] chains of stages; () for a model in one piece.
    head: from features, or of one piece from inputs, to logits.
    takes_run: the head has an argument `run`.
    by_batch: it uses statistics of the batch.
  """

  init: Callable[[Array], dict[str, Array]]
  encoders: tuple[tuple[Stage, ...], ...]
  head: Stage
  takes_run: bool
  by_batch: bool = False


class Cut(NamedTuple):
  """Describes what trains, and in which blocks (`own.from_flax`)."""

  blocks: Mapping[str, Patterns] | None
  modality: Mapping[str, str] | None
  frozen: Any


def _stages(model: Model) -> list[str]:
  every = [s.prefix for chain in model.encoders for s in chain]
  return [*every, model.head.prefix]


def wanted(model, trained, blocks) -> Mapping[str, Patterns] | None:
  """Gives the patterns of the blocks; of a chain by default a block a stage."""
  if blocks is not None or not model.encoders:
    return blocks
  return {
    prefix: prefix
    for prefix in _stages(model)
    if any(patterns.fits(path, prefix) for path in trained)
  }


def in_order(model: Model, owner: Mapping[str, str]) -> list[str]:
  """Lists blocks in the order of the stages, else of the parameters."""
  stages = _stages(model)

  def place(path):
    return next(
      i for i, s in enumerate(stages) if patterns.fits(path, s or '*')
    )

  return [owner[path] for path in sorted(owner, key=place)]


def sensors(model, modalities, names, owner, order, cut) -> dict[str, int]:
  """Finds the modality of each block, -1 for everybody's."""
  sensor = {}
  for name in names:
    end = name.rpartition('/')[2]
    sensor[name] = modalities.index(end) if end in modalities else -1
  head = _blocks_of(owner, [model.head])
  if len(modalities) == 1:
    last = head if model.encoders else {names[order[-1]]}
    sensor = {name: -1 if name in last else 0 for name in names}
  elif model.encoders:
    for m, chain in enumerate(model.encoders):
      others = _blocks_of(owner, chain, inside=False)
      for name in _blocks_of(owner, chain) - head:
        sensor[name] = -1 if name in others else m
  for name, given_name in (cut.modality or {}).items():
    if name not in names:
      raise unknown('block in modality', name, names)
    if given_name and given_name not in modalities:
      raise unknown(f'modality of the block {name!r}', given_name, modalities)
    sensor[name] = modalities.index(given_name) if given_name else -1
  return sensor


def _in_stage(path: str, prefix: str) -> bool:
  return not prefix or path.startswith(prefix + '/')


def _blocks_of(owner, stages, inside: bool = True) -> set[str]:
  """Finds the blocks of the parameters of some stages, or of all others."""
  return {
    block
    for path, block in owner.items()
    if any(_in_stage(path, s.prefix) for s in stages) == inside
  }


def blocks(model, modalities, names, owner, sensor, order) -> Blocks:
  """Describes the blocks of a user's model; `sensor` as `sensors` finds it."""
  head = _blocks_of(owner, [model.head])

  def role(name):
    if sensor[name] < 0:
      return 'head'
    columns = name in head if model.encoders else name.startswith('fusion')
    return 'fusion' if columns else 'encoder'

  roles = tuple(map(role, names))
  if model.encoders:
    found = _chain_layers(model, names, owner)
  else:
    found = tuple(
      tuple(g for g in order if sensor[names[g]] == m and roles[g] == 'encoder')
      for m in range(len(modalities))
    )
  return Blocks(names, tuple(sensor[n] for n in names), roles, found)


def _chain_layers(model, names, owner) -> tuple[tuple[int, ...], ...]:
  """Finds the block of every stage, [M][cuts]; () where none trains."""
  cuts = max(map(len, model.encoders))
  found: list[tuple[int, ...]] = []
  for chain in model.encoders:
    own: list[int | None] = []
    for stage in chain:
      blocks = {
        owner[path] for path in owner if _in_stage(path, stage.prefix or '/')
      }
      if len(blocks) > 1:
        raise InputError(
          f'the stage {stage.prefix} in the blocks {", ".join(sorted(blocks))}',
          'one block for a stage, which trains or is skipped as a whole',
          'cut the stage in two, or join these blocks',
        )
      own.append(names.index(blocks.pop()) if blocks else None)
    there = [g for g in own if g is not None]
    if not there:
      found.append(())
      continue
    # A stage without a block goes with the next one that has one, and what
    # lies above the last one with it.
    last, filled = there[-1], []
    for g in reversed(own):
      last = last if g is None else g
      filled.append(last)
    filled += filled[-1:] * (cuts - len(own))
    found.append(tuple(filled[::-1]))
  return tuple(found)
