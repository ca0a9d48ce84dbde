"""Macro-F1 and its relatives under explicit names (relief.md section 6).

A device is tested on the held-out windows with the sensors that it owns.
Labels never touch the input side: confusion matrices are counted after the
predictions.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.types import Array, Bank, PyTree, Task


def macro_f1(confusion: np.ndarray) -> float:
  """Mean F1 over the classes that occur in the labels or the predictions.

  The same as scikit-learn's `f1_score(average='macro', zero_division=0)`.

  Args:
    confusion: [C, C] counts, rows are true classes.

  >>> macro_f1(np.array([[2, 0], [1, 1]]))
  0.7333333333333334
  """
  scores = class_f1(confusion)
  present = (confusion.sum(0) + confusion.sum(1)) > 0
  return float(scores[present].mean()) if present.any() else 0.0


def class_f1(confusion: np.ndarray) -> np.ndarray:
  """F1 of every class, [C]; 0 where it never occurs."""
  confusion = np.asarray(confusion, np.float64)
  hits = np.diagonal(confusion)
  total = confusion.sum(0) + confusion.sum(1)
  return np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)


def subsets(owned: np.ndarray, rare: int) -> np.ndarray:
  """The modality subsets that are tested, [S, M] bool, without repetition.

  Those of the fleet, all on, the rare one alone, and all without one of them,
  each in turn.

  Args:
    owned: [N, M] bool.
    rare: number of the rare modality.
  """
  num = owned.shape[1]
  alone = np.eye(num, dtype=bool)[rare]
  extra = [np.ones(num, bool)[None], alone[None]]
  if num > 1:
    extra.append(~np.eye(num, dtype=bool))
  return np.unique(np.concatenate([owned, *extra]), axis=0)


def confusions(
  task: Task,
  params: PyTree,
  frozen: PyTree,
  bank: Bank,
  masks: Array,
  fill: str,
  batch: int = 256,
) -> Array:
  """Confusion matrix of every modality subset, [S, C, C] int32.

  Encoders run once per window; subsets only fuse. A model trained on filled
  inputs is tested with the same filling. Of a task that gives the logits of X
  exits (`types.Exits`) [1 + X, S, C, C]: first of their mean, then of each.

  Args:
    task: the model.
    params: P.
    frozen: parameters that never train.
    bank: test windows.
    masks: [S, M] bool.
    fill: `input` or `skip`.
    batch: windows at a time; bounds memory.
  """
  total = bank.y.shape[0]
  steps = -(-total // batch)
  at = jnp.arange(steps * batch)
  row = jnp.minimum(at, total - 1).reshape(steps, batch)
  weight = (at < total).astype(jnp.int32).reshape(steps, batch)

  def one(row, weight):
    seen, absent = {}, {}
    for i, name in enumerate(task.modalities):
      x = bank.x[name][row]
      seen[name] = task.encode(params, frozen, i, x, task.cuts)
      if fill == 'input':
        empty = jnp.broadcast_to(bank.fill[name], (1,) + x.shape[1:])
        absent[name] = task.encode(params, frozen, i, empty, task.cuts)
      else:
        absent[name] = jax.tree.map(
          lambda h: jnp.zeros((1,) + h.shape[1:]), seen[name]
        )
    y = bank.y[row]

    def subset(mask):
      features = {
        name: jax.tree.map(
          partial(jnp.where, mask[i]), seen[name], absent[name]
        )
        for i, name in enumerate(task.modalities)
      }
      run = jnp.ones_like(mask) if fill == 'input' else mask
      scores = task.fuse(params, frozen, features, run)
      if scores.ndim == 2:
        return count(scores)
      return jax.vmap(count)(jnp.concatenate([scores.mean(0)[None], scores]))

    def count(scores):
      classes = scores.shape[-1]
      guess = scores.argmax(-1)
      flat = jnp.zeros(classes * classes, jnp.int32)
      return flat.at[y * classes + guess].add(weight).reshape(classes, classes)

    return jax.lax.map(subset, masks)

  zeros = jax.eval_shape(one, row[0], weight[0])

  def body(total, chunk):
    return total + one(*chunk), None

  start = jnp.zeros(zeros.shape, zeros.dtype)
  found = jax.lax.scan(body, start, (row, weight))[0]
  return found if found.ndim == 3 else found.swapaxes(0, 1)


def report(
  counts: np.ndarray,
  masks: np.ndarray,
  owned: np.ndarray,
  tier: np.ndarray,
  rare: int,
  modalities: Sequence[str],
  tiers: Sequence[str],
  exits: np.ndarray | None = None,
) -> dict[str, Any]:
  """All F1s from confusion matrices.

  Args:
    counts: [S, C, C] of a global model, or [N, S, C, C] of personal ones.
    masks: [S, M] bool, the subsets tested.
    owned: [N, M] bool.
    tier: [N] tier of each device.
    rare: number of the rare modality.
    modalities: [M] names.
    tiers: names of the tiers.
    exits: [X, S, C, C], of each exit alone; None for a model without.

  Returns:
    `f1` and `accuracy` (mean over devices, each with its own sensors),
    `f1_all` (every sensor on), `f1_rare_owners`, `f1_rare_only`,
    `f1_without_rare`, `f1_without` (each sensor missing in turn),
    `f1_by_subset`, `f1_by_tier`, `f1_by_class` (all on).
    A personal model is tested with sensors that its device owns: there
    `f1_all` means those, and the rare ones are means over the rare owners.
    With exits also `f1_by_exit`, as `f1` of each alone from the input on.
  """
  num = owned.shape[0]
  place = (masks[None] == owned[:, None]).all(-1).argmax(1)  # [N] own subset
  personal = counts.ndim == 4
  every = counts if personal else counts[None]
  own = every[np.arange(num), place] if personal else counts  # or [S, C, C]
  own_f1 = np.array([macro_f1(c) for c in own])
  accuracy = np.array([np.trace(c) / max(c.sum(), 1) for c in own])
  if not personal:  # once per subset, however many devices have it
    own_f1, accuracy = own_f1[place], accuracy[place]

  def pick(mask, owners):
    found = int((masks == mask).all(-1).argmax())
    if not personal:
      return macro_f1(counts[found])
    return float(np.mean([macro_f1(c[found]) for c in every[owners]]))

  owners = owned[:, rare]
  alone = np.eye(owned.shape[1], dtype=bool)[rare]
  everything = np.ones(owned.shape[1], bool)
  full = int((masks == everything).all(-1).argmax())
  name = '+'.join
  by_subset = {}
  for i, mask in enumerate(masks):
    label = name(m for m, on in zip(modalities, mask, strict=True) if on)
    having = (owned == mask).all(-1)
    if not personal:
      by_subset[label] = macro_f1(counts[i])
    elif having.any():
      by_subset[label] = float(own_f1[having].mean())
  by_exit = [
    float(np.mean([macro_f1(c) for c in one[place]]))
    for one in (() if exits is None else exits)
  ]
  summed = own.sum(0) if personal else counts[full]
  return {
    'f1': float(own_f1.mean()),
    'accuracy': float(accuracy.mean()),
    'f1_all': float(own_f1.mean()) if personal else macro_f1(counts[full]),
    'f1_rare_owners': float(own_f1[owners].mean()),
    'f1_rare_only': pick(alone, owners),
    'f1_without_rare': pick(~alone, owners) if owned.shape[1] > 1 else 0.0,
    'f1_without': {
      m: pick(~np.eye(len(modalities), dtype=bool)[i], owned[:, i])
      for i, m in enumerate(modalities)
      if len(modalities) > 1
    },
    'f1_by_subset': by_subset,
    'f1_by_tier': {
      t: float(own_f1[tier == i].mean())
      for i, t in enumerate(tiers)
      if (tier == i).any()
    },
    'f1_by_class': class_f1(summed).tolist(),
    **({'f1_by_exit': by_exit} if by_exit else {}),
  }
