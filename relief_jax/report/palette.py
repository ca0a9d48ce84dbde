"""Colours, lines and axes of all figures.

The colours are Okabe and Ito's, told apart by colour-blind readers, and never
the only sign: lines differ in dashes and markers, bars in hatches, shades in
lightness.

Figures are drawn on objects of their own: nothing here touches pyplot, its
backend or a setting of whoever imports it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import figure, layout_engine, ticker
from matplotlib.text import Text
from scipy import optimize

from relief_jax.report import stats
from relief_jax.storage import naming

BLACK = '#000000'
VERMILION = '#D55E00'
BLUE = '#0072B2'
GREEN = '#009E73'
PURPLE = '#CC79A7'
ORANGE = '#E69F00'
SKY = '#56B4E9'
GREY = '#999999'
# Inches of a panel: its letters stay readable on a telephone's screen.
WIDTH = 4.6
_SPACING = 1.45  # of lines of letters, in heights of a letter
_INSIDE = 0.8  # of a figure's height, its axes'
LINES = 7  # in a panel, the baseline's among them
# Of lines; the first one is the baseline's.
COLOURS = (BLACK, VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)
STYLES = (
  '-',
  '--',
  '-.',
  ':',
  (0, (5, 1, 1, 1, 1, 1)),
  (0, (1, 1)),
  (0, (8, 2)),
)
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')


# Text as it is, whatever a user's matplotlibrc says: names may hold dollars.
_PLAIN = {
  'text.parse_math': False,
  'text.usetex': False,
  'axes.formatter.use_mathtext': False,
}


class Figure(figure.Figure):
  """Draws the texts of a figure as they are, with no mathematics in them.

  A tier or a class may be called `band_$20_v1_$`.
  """

  def draw(self, renderer):
    """Draws all, among it the ticks that are only made now."""
    with matplotlib.rc_context(_PLAIN):
      for text in self.findobj(Text):
        text.set_parse_math(False)
        text.set_usetex(False)
      super().draw(renderer)


def subplots(
  rows: int = 1,
  columns: int = 1,
  figsize: tuple[float, float] = (WIDTH, 3.4),
  **options: Any,
) -> tuple[Figure, Any]:
  """Makes a figure and its axes, as `pyplot.subplots` without its state.

  Args:
    rows: of axes.
    columns: of axes.
    figsize: inches.
    **options: of `Figure.subplots`.
  """
  space = layout_engine.ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
  made = Figure(figsize=figsize, layout=space)
  return made, made.subplots(rows, columns, **options)


def legend(owner, handles, names, **options) -> None:
  """Draws a legend that keeps names which begin with _, too.

  Long names are shortened.

  Args:
    owner: axes, or a figure.
    handles: drawn.
    names: of them.
    **options: of the legend.
  """
  made = owner.legend(handles, [f'.{name}' for name in names], **options)
  for text, name in zip(made.get_texts(), names, strict=True):
    text.set_text(naming.shorten(name))


def style(number: int) -> dict[str, Any]:
  """Gives the colour, dashes and marker of line `number`; 0 is black alone."""
  count = len(COLOURS) - 1
  lap, at = divmod(number - 1, count)
  return {
    'color': COLOURS[1 + at] if number else BLACK,
    'linestyle': STYLES[1 + (at + lap) % count] if number else STYLES[0],
    'marker': MARKERS[1 + (at + 2 * lap) % count] if number else MARKERS[0],
    'markersize': 4,
    'linewidth': 1.6,
  }


class End(NamedTuple):
  """Describes a point that is named at the edge of its axes.

  Attributes:
    x: in data coordinates.
    y: likewise.
    name: beside the axes.
    colour: of the name.
    weight: of its letters.
  """

  x: float
  y: float
  name: str
  colour: str
  weight: str = 'normal'


def height_for(names: int, size: float = 8) -> float:
  """Gives the inches of a figure at whose right edge so many names stand."""
  return max(3.5, names * _SPACING * size / 72 / _INSIDE)


def spaced(places: Sequence[float], step: float) -> list[float]:
  """Moves places apart to a distance of `step`, within 0 to 1 if they fit.

  The nearest such places, in the sum of squares.

  >>> [round(at, 2) for at in spaced([0.5, 0.5, 0.9], 0.2)]
  [0.4, 0.6, 0.9]

  Args:
    places: where labels should be.
    step: the least between two.

  Returns:
    Where they are, in the order of `places`.
  """
  order = np.argsort(places, kind='stable')
  before = step * np.arange(len(order))
  moved = optimize.isotonic_regression(np.array(places, float)[order] - before)
  room = 1 - step * (len(order) - 1)
  at = np.clip(moved.x, 0, room) if room >= 0 else moved.x
  found = np.empty(len(order))
  found[order] = at + before
  return found.tolist()


def name_ends(axes, ends: Sequence[End], size: float = 8) -> None:
  """Names points at the right edge, with a thin line from each to its name.

  Call it last: limits of the axes must not change any more.

  Args:
    axes: drawn.
    ends: the points.
    size: of the letters, points.
  """
  axes.get_xlim(), axes.get_ylim()  # settles both
  height = axes.get_figure().get_size_inches()[1]
  rows = axes.get_subplotspec().get_gridspec().nrows
  step = _SPACING * size / 72 / (_INSIDE * height / rows)
  inside = axes.transData + axes.transAxes.inverted()
  places = [inside.transform((end.x, end.y)) for end in ends]
  for place, at, end in zip(
    places, spaced([y for _, y in places], step), ends, strict=True
  ):
    axes.annotate(
      naming.shorten(end.name, 26),
      place,
      (1.07, at),
      xycoords='axes fraction',
      textcoords='axes fraction',
      fontsize=size,
      color=end.colour,
      fontweight=end.weight,
      va='center',
      arrowprops={
        'arrowstyle': '-',
        'color': end.colour,
        'linewidth': 0.5,
        'alpha': 0.6,
        'relpos': (0, 0.5),
        'shrinkA': 1,
        'shrinkB': 1,
      },
      annotation_clip=False,
    )


def around(
  axes,
  at: float,
  some: pd.DataFrame,
  kind: dict[str, Any],
  scale: float,
  across=False,
) -> tuple[Any, bool]:
  """Draws a mean with its interval, or with every run where they are few.

  Args:
    axes: drawn on.
    at: place on the other axis.
    some: a row per run, with `value` and `fold`.
    kind: from `style`.
    scale: from values to what is drawn.
    across: values are on the x axis.

  Returns:
    The mean's mark, for a legend, and whether there is an interval.
  """
  values, folds = scale * some.value.to_numpy(float), some.fold.to_numpy()
  kind = kind | {'linestyle': 'none', 'markersize': 6}
  found = stats.bootstrap(values, folds)

  def place(value):
    here = np.broadcast_to(at, np.shape(value))
    return (value, here) if across else (here, value)

  if found is None:
    few = {'marker': '|' if across else '_', 'markersize': 9, 'alpha': 0.7}
    axes.plot(*place(values), **kind | few)
  else:
    axes.plot(*place(np.array(found)), color=kind['color'], linewidth=1.2)
  (mark,) = axes.plot(
    *place(stats.units(values, folds).mean(keepdims=True)), **kind
  )
  return mark, found is not None


def tidy(axes) -> None:
  """Draws a faint grid and removes the frame."""
  axes.grid(alpha=0.25, linewidth=0.6)
  axes.spines[['top', 'right']].set_visible(False)


def logarithmic(axes, low: float, high: float) -> bool:
  """Makes the x axis logarithmic where values span more than a factor of 3.

  Args:
    axes: whose x axis it is.
    low: the least value; nothing is done where it is not above 0.
    high: the largest.

  Returns:
    Whether it was.
  """
  if not 0 < low < high / 3:
    return False
  axes.set_xscale('log')
  decades = np.log10(high / low)
  subs: tuple[int, ...] = (1,)
  if decades < 3:
    subs = (1, 3)
  if decades < 1.5:
    subs = (1, 2, 5)
  if decades < 0.8:
    subs = (1, 2, 3, 4, 6, 8)
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=subs))
  axes.xaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
  axes.xaxis.set_minor_formatter(ticker.NullFormatter())
  return True


def logarithmic_y(axes) -> None:
  """Makes the y axis logarithmic, with plain numbers, minor ones if few."""
  axes.set_yscale('log')
  axes.yaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
  axes.yaxis.set_minor_formatter(
    ticker.LogFormatter(labelOnlyBase=False, minor_thresholds=(1, 0.4))
  )


def time_unit(seconds: float) -> tuple[str, float]:
  """Chooses the unit of a time axis by its end: name and units in a second.

  >>> time_unit(12.0), time_unit(0.03), time_unit(2e-5)
  (('s', 1.0), ('ms', 1000.0), ('µs', 1000000.0))
  """
  if seconds >= 7200:
    return 'h', 1 / 3600
  if seconds >= 0.5:
    return 's', 1.0
  return ('ms', 1e3) if seconds >= 5e-4 else ('µs', 1e6)
