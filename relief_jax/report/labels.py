"""Labels of what is compared, such as `cnn/best/relief`, and their groups."""

from collections.abc import Iterable, Mapping


def short(label: str) -> str:
  """Gives a label without its group.

  >>> short('cnn/best/relief')
  'relief'
  """
  return label.rpartition('/')[2]


def group_of(label: str) -> str:
  """Gives the part of a label before its last slash.

  >>> group_of('cnn/best/relief'), group_of('relief')
  ('cnn/best', '')
  """
  return label.rpartition('/')[0]


def baseline_of(label: str, baseline: str) -> str:
  """Gives the label that `label` is compared with.

  >>> baseline_of('cnn/best/relief', 'fedavg')
  'cnn/best/fedavg'
  """
  group = group_of(label)
  return f'{group}/{baseline}' if group else baseline


def grouped(labels: Iterable[str]) -> dict[str, list[str]]:
  """Maps each group to its labels, in the order in which they come.

  >>> grouped(['a/x', 'b/x', 'a/y'])
  {'a': ['a/x', 'a/y'], 'b': ['b/x']}
  """
  found: dict[str, list[str]] = {}
  for label in labels:
    found.setdefault(group_of(label), []).append(label)
  return found


def best_groups(f1: Mapping[str, float], most: int) -> list[str]:
  """Selects the groups with the largest F1 in them, in their own order.

  Args:
    f1: of every label.
    most: groups.

  >>> best_groups({'a/x': 1.0, 'b/x': 3.0, 'c/x': 2.0, 'a/y': 4.0}, 2)
  ['a', 'b']
  """
  best = {
    group: max(f1[label] for label in own) for group, own in grouped(f1).items()
  }
  kept = sorted(best, key=lambda group: -best[group])[:most]
  return [group for group in best if group in kept]


def foremost(
  f1: Mapping[str, float], baseline: str, most: int, group: str | None = None
) -> list[str]:
  """Selects the labels with the largest F1, baselines first, at most so many.

  Args:
    f1: of every label.
    baseline: label within a group.
    most: labels.
    group: of labels; None for all.

  Returns:
    Labels in the order of `f1`.
  """
  own = [label for label in f1 if group is None or group_of(label) == group]
  rank = sorted(own, key=lambda label: (short(label) != baseline, -f1[label]))
  return [label for label in own if label in rank[:most]]
