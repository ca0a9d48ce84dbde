"""Reads a table: `--config.dataset=csv --config.data_path=FILE.csv`.

A row is a sample; the first line names the columns. `config.data.label` is what
is predicted: whole numbers and words are classes, numbers with a point are
numbers (a regression). `config.data.client` says whose row it is; without it
all rows are one's. A column `official_test` of 0 and 1 says what is held out;
without it the last fifth of every client's rows is
(`config.data.split=official`). All other columns are numbers, one modality,
unless `config.data.channels` makes several of them: 'bio=age,bmi;lab=hb_*'.

A single other column of words is texts, each with the class that the label
names: a symbol is a character (texts.py), and of a text the first
`config.data.width` count.
"""

from pathlib import Path

import ml_collections
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from relief_jax.datasets import arrays, texts
from relief_jax.datasets.channels import choose
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError
from relief_jax.files import paths

_TEST = 'official_test'


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Loads the table `config.data_path`.

  Args:
    config: `data_path`, `data.label`, `data.client`, `data.channels`, and of
      texts `data.width`.
    root: not used.

  Raises:
    InputError: no such file or column, or a column that is no number.
  """
  del root
  path = Path(paths.expand(config.data_path, 'config.data_path'))
  data = config.data
  return read(path, data.label, data.client, data.channels, data.width)


def read(
  path: Path, label: str, client: str, channels: str = '', width: int = 125
) -> Windows:
  """Reads a table.

  Args:
    path: of the file.
    label: column of what is predicted.
    client: column of whose row it is; '' for one client.
    channels: of several modalities (channels.py); '' for one.
    width: characters of a text that count.

  Raises:
    InputError: as `load`.
  """
  try:
    table = pd.read_csv(path, encoding='utf-8', skipinitialspace=True)
  except (OSError, ValueError, pd.errors.ParserError) as error:
    raise InputError(
      f'{path}: {str(error).splitlines()[0]}',
      'comma-separated UTF-8 text, the first line names the columns',
      'save it so',
    ) from error
  for key, name in (('label', label), ('client', client)):
    if name not in table and (name or key == 'label'):
      raise InputError(
        f'{path} without a column {name!r}',
        f'one of {", ".join(map(str, table.columns[:20]))}',
        f'set --config.data.{key}=COLUMN',
      )
  taken = [name for name in (label, client, _TEST) if name in table]
  values = table.drop(columns=taken)
  words = [str(n) for n in values if values[n].dtype.kind not in 'fiub']
  text = words == list(values) and len(words) == 1 and not channels
  if (words and not text) or values.empty:
    raise InputError(
      f'{path}: {f"no number in {words[0]!r}" if words else "no other column"}',
      'columns of numbers, or one of texts, beside label and client',
      'make numbers of it, or leave it out',
    )
  x, symbols, notes = _inputs(path, values, text, channels, width)
  y = table[label]
  if y.isna().any():
    raise InputError(
      f'{path}: no {label!r} in row {int(y.isna().argmax()) + 1}',
      'a label in every row',
      'fill it in, or leave the row out',
    )
  number, classes = y.to_numpy(), tuple([label])
  if y.dtype.kind != 'f':  # not a regression
    values, number = np.unique(y.to_numpy(), return_inverse=True)
    classes = tuple(str(v).strip() for v in values)
  found = arrays.windows(
    x,
    number,
    table[client].astype(str).to_numpy(str) if client else None,
    table[_TEST].to_numpy() > 0 if _TEST in table else None,
    classes,
    vocabulary=symbols,
  )
  return found._replace(notes=notes)


def _inputs(
  path: Path, values: pd.DataFrame, text: bool, channels: str, width: int
) -> tuple[dict[str, NDArray], tuple[str, ...], tuple[str, ...]]:
  """Gives what is predicted from, the vocabulary of texts, and notes."""
  if not text:
    x = values.to_numpy(np.float32)
    names = tuple(map(str, values.columns))
    parts = choose(channels, names, {'table': list(range(len(names)))})
    return {m: x[:, numbers] for m, numbers in parts.items()}, (), ()
  column = values[values.columns[0]]
  if column.isna().any():
    raise InputError(
      f'{path}: no text in row {int(column.isna().argmax()) + 1}',
      'a text in every row',
      'fill it in, or leave the row out',
    )
  tokens, symbols, notes = texts.each(column.astype(str).tolist(), width)
  return {texts.MODALITY: tokens}, symbols, notes
