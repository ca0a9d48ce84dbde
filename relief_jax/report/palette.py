"""Colours, lines and axes of all figures.

The colours are Okabe and Ito's, told apart by colour-blind readers, and never
the only sign: lines differ in dashes and markers, bars in hatches, shades in
lightness.

Figures are drawn on objects of their own: nothing here touches pyplot, its
backend or a setting of whoever imports it.
"""

from typing import Any

import matplotlib
from matplotlib import figure, ticker
from matplotlib.text import Text

from relief_jax.storage import naming

BLACK = '#000000'
VERMILION = '#D55E00'
BLUE = '#0072B2'
GREEN = '#009E73'
PURPLE = '#CC79A7'
ORANGE = '#E69F00'
SKY = '#56B4E9'
GREY = '#999999'
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
  figsize: tuple[float, float] = (8.6, 4.2),
  **options: Any,
) -> tuple[Figure, Any]:
  """Makes a figure and its axes, as `pyplot.subplots` without its state.

  Args:
    rows: of axes.
    columns: of axes.
    figsize: inches.
    **options: of `Figure.subplots`.
  """
  made = Figure(figsize=figsize, layout='constrained')
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
  """Gives the colour, dashes and marker of line `number`."""
  count = len(COLOURS)
  return {
    'color': COLOURS[number % count],
    'linestyle': STYLES[number % count],
    'marker': MARKERS[(number + number // count) % count],
    'markersize': 4,
    'linewidth': 1.6,
  }


def tidy(axes) -> None:
  """Draws a faint grid and removes the frame."""
  axes.grid(alpha=0.25, linewidth=0.6)
  axes.spines[['top', 'right']].set_visible(False)


def logarithmic(axes) -> None:
  """Makes the x axis logarithmic, with plain numbers."""
  axes.set_xscale('log')
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
  axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def logarithmic_y(axes) -> None:
  """Makes the y axis logarithmic, with plain numbers, minor ones if few."""
  axes.set_yscale('log')
  axes.yaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
  axes.yaxis.set_minor_formatter(
    ticker.LogFormatter(labelOnlyBase=False, minor_thresholds=(1, 0.4))
  )
