"""Records of a client's local training: its steps, batches and gates."""

from collections.abc import Callable
from typing import NamedTuple

from relief_jax.types import Array, Bank, Shift


class Batch(NamedTuple):
  """Describes rows of the bank, gathered only where a branch really runs.

  Attributes:
    bank: the windows.
    row: [B] int32, rows of the bank.
    weight: [B] float32, 0 for padding.
    shift: [M] of every field, the client's own, or None.
    alter: (modality number, inputs [B, ...]) -> inputs, an augmentation of what
      the sensors deliver or are filled with; None: none.
    mend: (features, run [M]) -> both, what stands in for sensors that are not
      there, between encoders and fusion; None: nothing.
  """

  bank: Bank
  row: Array
  weight: Array
  shift: Shift | None = None
  alter: Callable[[int, Array], Array] | None = None
  mend: Callable[..., tuple[dict[str, Array], Array]] | None = None


class Gate(NamedTuple):
  """Marks the parts that one client runs, senses and trains in one step.

  Attributes:
    run: [M] bool, the modality's branch is in the forward pass.
    sensed: [M] bool, its input is the real window, else `Bank.fill`; None
      where all that runs is sensed.
    train: [G] bool, the group is moved.
  """

  run: Array
  sensed: Array | None
  train: Array


class Output(NamedTuple):
  """Holds the output of a model on a batch.

  Attributes:
    features: {modality: [B, d_m]}, zeros where a branch does not run.
    logits: [B, C].
    routing: [B, ..., n, E] probabilities of a mixture of experts, on the way;
      None without.
  """

  features: dict[str, Array]
  logits: Array
  routing: Array | None = None


class Steps(NamedTuple):
  """Holds one client's local steps, drawn before the client map.

  Attributes:
    row: [T, B] int32, rows of the bank.
    weight: [T, B] float32, 0 for padding; a step of padding only is skipped.
    run: [T, M] bool, branches in the forward pass.
    sensed: [T, M] bool, real inputs, or None where all that runs is sensed.
    shift: [T, M] of every field, the same in all steps, or None.
    key: [T] keys, for objectives that draw; else None.
  """

  row: Array
  weight: Array
  run: Array
  sensed: Array | None
  shift: Shift | None = None
  key: Array | None = None
