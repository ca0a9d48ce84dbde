"""Turns sums of an evaluation into metrics under explicit names.

Their names and meaning: storage/fields.py and docs/metrics.md.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from relief_jax.runs.evaluation import Counts, Scope
from relief_jax.scoring import metrics, rules, targets
from relief_jax.scoring.metrics import Metric


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
    targets: their kind.
  """

  owned: np.ndarray
  tier: np.ndarray
  rare: int
  modalities: Sequence[str]
  tiers: Sequence[str]
  persons: Sequence[str]
  validation: np.ndarray
  classes: Sequence[str]
  targets: str = targets.CLASSES

  @property
  def metric(self) -> Metric:
    """The main metric."""
    return metrics.OF[self.targets]

  @property
  def rule(self) -> rules.Rule:
    """How metrics follow from sums."""
    return rules.RULES[self.targets]

  @property
  def tested(self) -> np.ndarray:
    """[Z] bool, persons that results are of."""
    return ~np.asarray(self.validation, bool)


class Report(NamedTuple):
  """Holds the scores of an evaluation.

  Attributes:
    record: name -> score, see docs/metrics.md.
    devices: name -> [N], what every device scores: on the persons that are
      tested and, where some are held back, on its own later windows, NaN where
      it has none.
    confusion: [C, C] counts behind `f1_by_class`, rows are true classes; None
      of targets that are no classes.
  """

  record: dict[str, Any]
  devices: dict[str, np.ndarray]
  confusion: np.ndarray | None


class _Models(NamedTuple):
  """Holds sums of distinct (model, sensor set) pairs.

  Attributes:
    rule: of the targets.
    counts: [U, Z, C, C] or [U, Z, D].
    device: [N] the pair of each device.
    loss: [U, Z] sums of the cross-entropy; () where none was computed.
  """

  rule: rules.Rule
  counts: np.ndarray
  device: np.ndarray
  loss: np.ndarray | tuple = ()

  def of(self, metric: Callable, persons: np.ndarray) -> np.ndarray:
    """Computes a metric of every device over some persons together, [N]."""
    return metric(self.rule.persons(self.counts, persons))[self.device]


def report(counts: Counts, scope: Scope, facts: Facts) -> Report:
  """Computes all metrics.

  Args:
    counts: numpy arrays; those of personal models have one axis more.
    scope: of the evaluation.
    facts: of fleet and persons.
  """
  masks, owned = scope.masks, facts.owned
  rule, name, tested = facts.rule, facts.metric.name, facts.tested
  place = (masks[None] == owned[:, None]).all(-1).argmax(1)  # [N] own subset
  devices = _devices(counts, scope, place, rule)
  record: dict[str, Any] = {}
  each: dict[str, np.ndarray] = {}
  for one, of_persons in rule.scores(facts.metric):
    each[one] = found = devices.of(of_persons, tested)
    record |= {
      one: float(found.mean()),
      f'{one}_by_tier': _by_tier(found, facts),
      f'{one}_by_subset': _by_subset(found, facts),
      f'{one}_by_person': _by_person(devices, of_persons, facts),
    }
    if not tested.all():
      held = devices.of(of_persons, ~tested)
      record[f'{one}_validation'] = float(held.mean())
  # Of the server's model or personal ones, over persons: [(N,) S, C, C].
  whole = rule.persons(np.asarray(counts.whole), tested)
  personal = rule.personal(counts.whole)
  confusion = None
  if facts.targets == targets.CLASSES:
    confusion = (
      whole[np.arange(len(place)), place].sum(0)
      if personal
      else whole[int(scope.masks.all(-1).argmax())]
    )
    record[f'{name}_by_class'] = dict(
      zip(facts.classes, rules.class_f1(confusion).tolist(), strict=True)
    )
  record |= _probes(counts, scope, facts, each[name], whole, place)
  record |= _loss(devices, tested)
  if not personal:
    server = _Models(
      rule, np.asarray(counts.whole)[place], np.arange(len(place))
    )
    same = isinstance(counts.submodels, tuple)
    for one, of_persons in rule.scores(facts.metric):
      at_server = each[one] if same else server.of(of_persons, tested)
      record |= {
        f'{one}_global': float(at_server.mean()),
        f'{one}_global_by_tier': _by_tier(at_server, facts),
        f'{one}_global_by_person': record[f'{one}_by_person']
        if same
        else _by_person(server, of_persons, facts),
      }
  if not isinstance(counts.own, tuple):
    each |= _own(np.asarray(counts.own), facts, record)
  return Report(record, each, confusion)


def _loss(devices: _Models, tested: np.ndarray) -> dict[str, float]:
  """Computes the mean loss of a window or token; {} where there is none."""
  rule = devices.rule
  found = rule.persons(devices.counts, tested)
  if rule.nats:
    summed = rule.nats(found)
  elif not isinstance(devices.loss, tuple):
    summed = devices.loss[:, tested].sum(1)
  else:
    return {}
  each = summed / np.maximum(rule.count(found), 1)
  return {'test_loss': float(each[devices.device].mean())}


def _devices(
  counts: Counts, scope: Scope, place: np.ndarray, rule: rules.Rule
) -> _Models:
  """Finds the model and sensor set that every device is tested with."""
  loss: np.ndarray | tuple = ()
  known = not isinstance(counts.loss, tuple)
  if rule.personal(counts.whole):
    at = np.arange(len(place)), place
    if known:
      loss = np.asarray(counts.loss)[at]
    return _Models(rule, np.asarray(counts.whole)[at], at[0], loss)
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
  return _Models(rule, np.stack(found), device.ravel(), loss)


def _by_tier(main: np.ndarray, facts: Facts) -> dict[str, float]:
  return {
    name: float(np.nanmean(main[there]))
    for i, name in enumerate(facts.tiers)
    if (there := (facts.tier == i) & ~np.isnan(main)).any()
  }


def _by_subset(main: np.ndarray, facts: Facts) -> dict[str, float]:
  return {
    _label(mask, facts): float(main[(facts.owned == mask).all(-1)].mean())
    for mask in np.unique(facts.owned, axis=0)
  }


def _by_person(
  models: _Models, metric: Callable, facts: Facts
) -> dict[str, float]:
  each = metric(models.counts)  # [U, Z]
  return {
    name: float(each[:, z][models.device].mean())
    for z, name in enumerate(facts.persons)
    if not facts.validation[z]
  }


def _label(mask: np.ndarray, facts: Facts) -> str:
  return '+'.join(m for m, on in zip(facts.modalities, mask, strict=True) if on)


def _probes(counts, scope, facts, main, whole, place) -> dict[str, Any]:
  """Computes metrics of the server's model with sensors on and off.

  A personal model is tested with sensors that its device owns: there `f1_all`
  means those, and the others are means over the owners of the sensor.

  Args:
    counts: numpy arrays.
    scope: of the evaluation.
    facts: of fleet and persons.
    main: [N] main metric of the devices.
    whole: [(N,) S, C, C] sums over the persons that are tested.
    place: [N] the sensor set of each device.
  """
  masks, owned, rule = scope.masks, facts.owned, facts.rule
  name, num = facts.metric.name, owned.shape[1]
  personal = rule.personal(counts.whole)
  each = rule.main(whole)  # [(N,) S]

  def pick(mask, owners):
    at = int((masks == mask).all(-1).argmax())
    return float(each[owners, at].mean() if personal else each[at])

  alone = np.eye(num, dtype=bool)
  rare = facts.rare
  found = {
    f'{name}_all': float(main.mean())
    if personal
    else float(each[masks.all(-1).argmax()]),
    f'{name}_rare_only': pick(alone[rare], owned[:, rare]),
  }
  if num > 1:
    found[f'{name}_without_rare'] = pick(~alone[rare], owned[:, rare])
  elif facts.metric.largest:  # the worst of a share; of others there is none
    found[f'{name}_without_rare'] = 0.0
  found[f'{name}_without'] = {
    m: pick(~alone[i], owned[:, i])
    for i, m in enumerate(facts.modalities)
    if num > 1
  }
  if not personal:
    found[f'{name}_global_by_subset'] = {
      _label(mask, facts): float(each[i]) for i, mask in enumerate(masks)
    }
  if not isinstance(counts.exits, tuple):
    exits = rule.persons(np.asarray(counts.exits), facts.tested)
    exits = rule.main(exits)  # [X, S]
    found[f'{name}_by_exit'] = exits[:, place].mean(1).tolist()
  return found


def _own(
  counts: np.ndarray, facts: Facts, record: dict
) -> dict[str, np.ndarray]:
  """Adds metrics on own windows to the record; returns those by device."""
  has = facts.rule.own_count(counts) > 0
  owners = has & facts.owned[:, facts.rare]
  found = {}
  for name, of_own in facts.rule.own_scores(facts.metric):
    found[f'{name}_own'] = each = np.where(has, of_own(counts), np.nan)
    record[f'{name}_own'] = float(each[has].mean())
    record[f'{name}_own_by_tier'] = _by_tier(each, facts)
    # Pooled: the windows of all owners are one test set.
    record[f'{name}_own_rare_owners'] = float(of_own(counts[owners].sum(0)))
  return found
