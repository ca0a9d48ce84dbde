"""What the figures of a report share: headings and legends."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from relief_jax.report import labels, palette
from relief_jax.report.gather import Collection
from relief_jax.storage import naming

# Groups of labels with figures of their own.
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


def per_group(
  collection: Collection,
  name: str,
  title: str,
  most: int,
  draw: Callable[[list[str]], tuple[str, Mapping[str, Figure]]],
) -> list[Chart]:
  """Draws a chart for each of the best groups of labels.

  Args:
    collection: of runs.
    name: of the files, behind the group's.
    title: before the group's name.
    most: labels of a group.
    draw: labels -> caption and panels; a chart without panels is left out.
  """
  made = []
  for group in collection.groups(GROUPS):
    caption, panels = draw(collection.foremost(most, group))
    head = f'{title}: {group}' if group else title
    if panels:
      file = naming.file_name(group, name)
      made.append(Chart(file, head, caption, panels))
  return made


def those(collection: Collection, own: Sequence[str]) -> str:
  """Says which labels of a group are drawn, for a caption."""
  every = labels.grouped(collection.rank)[labels.group_of(own[0])]
  if len(own) == len(every):
    return 'all runs' if len(every) > 1 else 'the run'
  return f'the best {len(own)} of {len(every)} labels (and the baseline)'
