"""Turns counts of an evaluation into F1s under explicit names.

Their names and meaning: storage/fields.py and docs/metrics.md.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from relief_jax.runs.evaluation import Counts, Scope


def class_f1(confusion: np.ndarray) -> np.ndarray:
  """Computes F1 of every class, [..., C, C] -> [..., C]; 0 where it is absent.

  Args:
    confusion: counts, rows are true classes.
  """
  confusion = np.asarray(confusion, np.float64)
  return _f1(
    np.diagonal(confusion, axis1=-2, axis2=-1),
    confusion.sum(-2),
    confusion.sum(-1),
  )[0]


def macro_f1(confusion: np.ndarray) -> Any:
  """Averages F1 over the classes that occur in labels or predictions.

  The same as scikit-learn's `f1_score(average='macro', zero_division=0)`.

  Args:
    confusion: [..., C, C] counts, rows are true classes.

  Returns:
    [...] float64.

  >>> float(macro_f1(np.array([[2, 0], [1, 1]])))
  0.7333333333333334
  """
  confusion = np.asarray(confusion, np.float64)
  hits = np.diagonal(confusion, axis1=-2, axis2=-1)
  return _macro(hits, confusion.sum(-2), confusion.sum(-1))


def _f1(hits, predicted, true):
  """Computes F1 and presence of every class, [..., C] each."""
  total = np.asarray(predicted + true, np.float64)
  score = np.divide(2 * hits, total, out=np.zeros(total.shape), where=total > 0)
  return score, total > 0


def _macro(hits, predicted, true):
  score, present = _f1(hits, predicted, true)
  return score.sum(-1) / np.maximum(present.sum(-1), 1)


class Facts(NamedTuple):
  """Holds the facts of fleet and persons that a report needs.

  Attributes:
    owned: [N, M] bool.
    tier: [N] tier of each device.
    rare: number of the rare modality.
    modalities: [M] names.
    tiers: names of the tiers.
    persons: [Z] names of the persons on no device.
    validation: [Z] bool, those to choose values by.
    classes: [C] names.
  """

  owned: np.ndarray
  tier: np.ndarray
  rare: int
  modalities: Sequence[str]
  tiers: Sequence[str]
  persons: Sequence[str]
  validation: np.ndarray
  classes: Sequence[str]


class Report(NamedTuple):
  """Holds the scores of an evaluation.

  Attributes:
    record: name -> score, see docs/metrics.md.
    f1: [N] of every device on the persons that are tested.
    f1_own: [N] on its own later windows, NaN where it has none; None where
      none are held back.
    confusion: [C, C] counts behind `f1_by_class`, rows are true classes.
  """

  record: dict[str, Any]
  f1: np.ndarray
  f1_own: np.ndarray | None
  confusion: np.ndarray


class _Models(NamedTuple):
  """Holds confusion matrices of distinct (model, sensor set) pairs.

  Attributes:
    counts: [U, Z, C, C].
    device: [N] the pair of each device.
    loss: [U, Z] sums of the cross-entropy; () where none was computed.
  """

  counts: np.ndarray
  device: np.ndarray
  loss: np.ndarray | tuple = ()

  def over(self, persons: np.ndarray) -> np.ndarray:
    """Computes macro-F1 of every device over some persons together, [N]."""
    return macro_f1(self.counts[:, persons].sum(1))[self.device]


def report(counts: Counts, scope: Scope, facts: Facts) -> Report:
  """Computes all F1s.

  Args:
    counts: numpy arrays; those of personal models have one axis more.
    scope: of the evaluation.
    facts: of fleet and persons.
  """
  masks, owned = scope.masks, facts.owned
  place = (masks[None] == owned[:, None]).all(-1).argmax(1)  # [N] own subset
  personal = counts.whole.ndim == 5
  devices = _devices(counts, scope, place)
  tested = ~np.asarray(facts.validation, bool)
  f1 = devices.over(tested)
  summed = devices.counts[:, tested].sum(1)
  hits = np.trace(summed, axis1=-2, axis2=-1)
  windows = np.maximum(summed.sum((-2, -1)), 1)
  accuracy = (hits / windows)[devices.device]
  # Of the server's model or personal ones, over persons: [(N,) S, C, C].
  whole = np.asarray(counts.whole)[..., tested, :, :].sum(-3)
  full = int(scope.masks.all(-1).argmax())
  if personal:
    confusion = whole[np.arange(len(place)), place].sum(0)
  else:
    confusion = whole[full]
  record = {
    'f1': float(f1.mean()),
    'accuracy': float(accuracy.mean()),
    'f1_by_tier': _by_tier(f1, facts),
    'f1_by_subset': _by_subset(f1, facts),
    'f1_by_person': _by_person(devices, facts),
    'f1_by_class': dict(
      zip(facts.classes, class_f1(confusion).tolist(), strict=True)
    ),
    **_probes(counts, scope, facts, f1, tested),
  }
  if not isinstance(devices.loss, tuple):
    loss = (devices.loss[:, tested].sum(1) / windows)[devices.device]
    record['test_loss'] = float(loss.mean())
  if not personal:
    whole = _Models(np.asarray(counts.whole)[place], np.arange(len(place)))
    same = isinstance(counts.submodels, tuple)
    at_server = f1 if same else whole.over(tested)
    record |= {
      'f1_global': float(at_server.mean()),
      'f1_global_by_tier': _by_tier(at_server, facts),
      'f1_global_by_person': record['f1_by_person']
      if same
      else _by_person(whole, facts),
    }
  if not tested.all():
    record['f1_validation'] = float(devices.over(~tested).mean())
  own = None
  if not isinstance(counts.own, tuple):
    own = _own(np.asarray(counts.own), facts, record)
  return Report(record, f1, own, confusion)


def _confusion(counts: Counts, scope: Scope, place, tested) -> np.ndarray:
  """Sums the server's model with every sensor on; personal ones on their own.

  Args:
    counts: numpy arrays.
    scope: of the evaluation.
    place: [N] the sensor set of each device.
    tested: [Z] bool, the persons.

  Returns:
    [C, C] counts.
  """
  whole = np.asarray(counts.whole)[..., tested, :, :].sum(-3)
  if whole.ndim == 4:
    return whole[np.arange(len(place)), place].sum(0)
  return whole[int(scope.masks.all(-1).argmax())]


def _devices(counts: Counts, scope: Scope, place: np.ndarray) -> _Models:
  """Finds the model and sensor set that every device is tested with."""
  loss: np.ndarray | tuple = ()
  known = not isinstance(counts.loss, tuple)
  if counts.whole.ndim == 5:  # personal
    at = np.arange(len(place)), place
    if known:
      loss = np.asarray(counts.loss)[at]
    return _Models(np.asarray(counts.whole)[at], at[0], loss)
  sets = np.cumsum(scope.of_fleet) - 1  # place among those of the fleet
  index = (
    np.zeros_like(place)
    if isinstance(counts.model_index, tuple)
    else np.asarray(counts.model_index)
  )
  pairs, device = np.unique(
    np.stack([index, place]), axis=1, return_inverse=True
  )
  found = [
    counts.whole[s] if v == 0 else counts.submodels[v - 1][sets[s]]
    for v, s in pairs.T
  ]
  if known:
    loss = np.stack(
      [
        counts.loss[s] if v == 0 else counts.submodel_loss[v - 1][sets[s]]
        for v, s in pairs.T
      ]
    )
  return _Models(np.stack(found), device.ravel(), loss)


def _by_tier(f1: np.ndarray, facts: Facts) -> dict[str, float]:
  return {
    name: float(np.nanmean(f1[there]))
    for i, name in enumerate(facts.tiers)
    if (there := (facts.tier == i) & ~np.isnan(f1)).any()
  }


def _by_subset(f1: np.ndarray, facts: Facts) -> dict[str, float]:
  return {
    _label(mask, facts): float(f1[(facts.owned == mask).all(-1)].mean())
    for mask in np.unique(facts.owned, axis=0)
  }


def _by_person(models: _Models, facts: Facts) -> dict[str, float]:
  each = macro_f1(models.counts)  # [U, Z]
  return {
    name: float(each[:, z][models.device].mean())
    for z, name in enumerate(facts.persons)
    if not facts.validation[z]
  }


def _label(mask: np.ndarray, facts: Facts) -> str:
  return '+'.join(m for m, on in zip(facts.modalities, mask, strict=True) if on)


def _probes(counts, scope, facts, f1, tested) -> dict[str, Any]:
  """Computes scores of the server's model with sensors on and off.

  A personal model is tested with sensors that its device owns: there `f1_all`
  means those, and the others are means over the owners of the sensor.
  """
  masks, owned = scope.masks, facts.owned
  num = owned.shape[1]
  personal = counts.whole.ndim == 5
  whole = np.asarray(counts.whole)[..., tested, :, :].sum(-3)  # [(N,) S, C, C]
  each = macro_f1(whole)  # [(N,) S]

  def pick(mask, owners):
    at = int((masks == mask).all(-1).argmax())
    return float(each[owners, at].mean() if personal else each[at])

  alone = np.eye(num, dtype=bool)
  everything = np.ones(num, bool)
  rare = facts.rare
  full = int((masks == everything).all(-1).argmax())
  place = (masks[None] == owned[:, None]).all(-1).argmax(1)
  found = {
    'f1_all': float(f1.mean()) if personal else float(each[full]),
    'f1_rare_only': pick(alone[rare], owned[:, rare]),
    'f1_without_rare': pick(~alone[rare], owned[:, rare]) if num > 1 else 0.0,
    'f1_without': {
      m: pick(~alone[i], owned[:, i])
      for i, m in enumerate(facts.modalities)
      if num > 1
    },
  }
  if not personal:
    found['f1_global_by_subset'] = {
      _label(mask, facts): float(each[i]) for i, mask in enumerate(masks)
    }
  if not isinstance(counts.exits, tuple):
    exits = macro_f1(counts.exits[..., tested, :, :].sum(-3))  # [X, S]
    found['f1_by_exit'] = exits[:, place].mean(1).tolist()
  return found


def _own(counts: np.ndarray, facts: Facts, record: dict) -> np.ndarray:
  """Adds scores on own windows to the record; returns those by device."""
  hits, predicted, true = np.moveaxis(counts, 1, 0)
  has = true.sum(-1) > 0
  f1 = np.where(has, _macro(hits, predicted, true), np.nan)
  owners = has & facts.owned[:, facts.rare]
  record['f1_own'] = float(f1[has].mean())
  record['f1_own_by_tier'] = _by_tier(f1, facts)
  # Pooled: the windows of all owners are one test set.
  record['f1_own_rare_owners'] = float(
    _macro(hits[owners].sum(0), predicted[owners].sum(0), true[owners].sum(0))
  )
  return f1
