"""Colours, lines and axes of all figures.

The colours are Okabe and Ito's, told apart by colour-blind readers, and never
the only sign: lines differ in dashes and markers, bars in hatches, shades in
lightness.
"""

from typing import Any

from matplotlib import ticker

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


def style(number: int) -> dict[str, Any]:
  """Colour, dashes and marker of line `number`."""
  count = len(COLOURS)
  return {
    'color': COLOURS[number % count],
    'linestyle': STYLES[number % count],
    'marker': MARKERS[(number + number // count) % count],
    'markersize': 4,
    'linewidth': 1.6,
  }


def tidy(axes) -> None:
  """A faint grid and no frame."""
  axes.grid(alpha=0.25, linewidth=0.6)
  axes.spines[['top', 'right']].set_visible(False)


def logarithmic(axes) -> None:
  """A logarithmic x axis with plain numbers."""
  axes.set_xscale('log')
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
  axes.xaxis.set_minor_formatter(ticker.NullFormatter())
