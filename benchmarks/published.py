"""How do the boards' device files compare with times that others published?

python -m benchmarks.published

Every row of published_times.csv is a forward pass of one image that somebody
measured on a board of `relief_jax/devices/*.json`. Predicted is what the cost
model says: the model's published FLOPs over the board's sustained FLOP/s. One
JSON line per row; then one per board and software with the geometric mean of
the ratios, the largest factor, and with three models or more Spearman's rank
correlation. Nothing is run here but this arithmetic.

Where the figures are from: `SOURCES`. FLOPs are two per multiply-add.
"""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import scipy.stats

from relief_jax.cli import command
from relief_jax.devices import DEVICES
from relief_jax.errors import InputError

TABLE = pathlib.Path(__file__).with_name('published_times.csv')
SOURCES = {
  'tx2': 'https://github.com/NVIDIA-AI-IOT/tf_to_trt_image_classification, '
  'float32, copies to and from the GPU included; the power mode is not said',
  'edge': 'https://github.com/aallan/benchmarking-ml-on-the-edge, images of '
  '300 x 300; the precision under TensorRT is not said',
  'omz': 'https://github.com/openvinotoolkit/open_model_zoo, models/public',
  'resnet': 'https://arxiv.org/abs/1512.03385, table 1',
}


class Row(NamedTuple):
  """Holds a published time.

  Attributes:
    board: name of a device.
    software: that ran the model.
    model: its name there.
    gflop: of a forward pass of one image.
    flops: source of it, of `SOURCES`.
    milliseconds: measured.
    times: source of them.
  """

  board: str
  software: str
  model: str
  gflop: float
  flops: str
  milliseconds: float
  times: str

  @property
  def predicted(self) -> float:
    """Milliseconds by the device file."""
    return 1e12 * self.gflop / DEVICES[self.board].speed

  @property
  def ratio(self) -> float:
    """Predicted over measured."""
    return self.predicted / self.milliseconds


def read(path: pathlib.Path = TABLE) -> list[Row]:
  """Reads the table.

  Args:
    path: a CSV file with the fields of `Row`.

  Raises:
    InputError: a board without a file, or a figure without a source.
  """
  with path.open(newline='', encoding='utf-8') as file:
    rows = [
      Row(
        board=one['board'],
        software=one['software'],
        model=one['model'],
        gflop=float(one['gflop']),
        flops=one['flops'],
        milliseconds=float(one['milliseconds']),
        times=one['times'],
      )
      for one in csv.DictReader(file)
    ]
  for row in rows:
    unknown = {row.flops, row.times} - set(SOURCES)
    if row.board not in DEVICES or unknown:
      raise InputError(
        f'{row.model} of {row.board}, sources {row.flops} and {row.times}',
        f'one of {", ".join(DEVICES)}, and sources of {", ".join(SOURCES)}',
        f'correct {path.name}',
      )
  return rows


def together(rows: Sequence[Row]) -> dict[str, float | None]:
  """Sums up what one software did on one board.

  Args:
    rows: at least one.

  Returns:
    The geometric mean of predicted over measured, the largest factor between
    them, and their rank correlation, None for less than three.
  """
  ratios = [row.ratio for row in rows]
  rank = None
  if len(rows) > 2:
    pairs = [(row.predicted, row.milliseconds) for row in rows]
    rank = float(scipy.stats.spearmanr(pairs).statistic)
  return {
    'geometric_mean': float(scipy.stats.gmean(ratios)),
    'largest_factor': max(max(r, 1 / r) for r in ratios),
    'rank_correlation': rank,
  }


def main(argv):
  """Prints a line per time, then one per board and software."""
  del argv
  rows = read()
  for row in rows:
    found = {
      **row._asdict(),
      'predicted_milliseconds': row.predicted,
      'ratio': row.ratio,
    }
    print(json.dumps({'benchmark': 'published', **found}))
  for board, software in dict.fromkeys((r.board, r.software) for r in rows):
    own = [r for r in rows if (r.board, r.software) == (board, software)]
    case = {'benchmark': 'published', 'board': board, 'software': software}
    print(json.dumps({**case, 'models': len(own), **together(own)}))


if __name__ == '__main__':
  command.launch(main)
