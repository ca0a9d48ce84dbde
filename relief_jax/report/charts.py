"""What the figures of a report share: headings and legends."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from relief_jax.report import labels, palette
from relief_jax.report.gather import Collection

# Lines in a panel beside the baseline, groups with figures of their own.
LINES = 6
GROUPS = 6


class Chart(NamedTuple):
  """Describes a chart of one or several panels.

  Attributes:
    name: of its files.
    title: its heading.
    caption: what it shows, for those who cannot see it too.
    panels: figures of matplotlib by the end of the file's name, '' for one.
  """

  name: str
  title: str
  caption: str
  panels: Mapping[str, Figure]


def legend(figure, handles: dict[str, Any]) -> None:
  """Draws a legend below all panels."""
  names = [labels.short(label) for label in handles]
  wide = max(map(len, names), default=0)
  palette.legend(
    figure,
    list(handles.values()),
    names,
    loc='outside lower center',
    ncols=max(1, min(len(names), 64 // (wide + 8))),
    frameon=False,
    fontsize=8,
  )


def titled(text: str, group: str) -> str:
  """Gives a heading, with the group where there is one."""
  return f'{text}: {group}' if group else text


def those(collection: Collection, own: Sequence[str], group: str) -> str:
  """Says which labels of a group are drawn, for a caption."""
  every = [x for x in collection.by_label if labels.group_of(x) == group]
  if len(own) == len(every):
    return 'all runs' if len(every) > 1 else 'the run'
  return f'the best {len(own)} of {len(every)} labels (and the baseline)'
