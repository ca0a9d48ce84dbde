"""What the figures of a report share: headings and legends."""

from typing import Any, NamedTuple

from matplotlib.figure import Figure

from relief_jax.report import palette, tables
from relief_jax.report.gather import Collection

# Lines in a panel beside the baseline, groups with figures of their own.
LINES = 6
GROUPS = 6


class Chart(NamedTuple):
  """Describes one figure.

  Attributes:
    name: of its files.
    title: its heading.
    caption: what it shows, for those who cannot see it too.
    figure: of matplotlib.
  """

  name: str
  title: str
  caption: str
  figure: Figure


def legend(figure, handles: dict[str, Any], short: bool = True) -> None:
  """Draws a legend below all panels."""
  names = [tables.short(label) if short else label for label in handles]
  wide = max(map(len, names), default=0)
  palette.legend(
    figure,
    list(handles.values()),
    names,
    loc='outside lower center',
    ncols=max(1, min(len(names), 96 // (wide + 8))),
    frameon=False,
    handlelength=3.6,
  )


def titled(text: str, group: str) -> str:
  """Gives a heading, with the group where there is one."""
  return f'{text}: {group}' if group else text


def those(collection: Collection, labels, group: str) -> str:
  """Says which labels of a group are drawn, for a caption."""
  every = {
    one.run.label
    for one in collection.found
    if tables.group_of(one.run.label) == group
  }
  if len(labels) == len(every):
    return 'all runs' if len(every) > 1 else 'the run'
  return f'the best {len(labels)} of {len(every)} labels (and the baseline)'
