"""Reads a table: `--config.dataset=csv --config.data_path=FILE.csv`.

A row is a sample; the first line names the columns. `config.data.label` is what
is predicted: whole numbers and words are classes, numbers with a point are
numbers (a regression). `config.data.client` says whose row it is; without it
all rows are one's. A column `official_test` of 0 and 1 says what is held out;
without it the last fifth of every client's rows is
(`config.data.split=official`). All other columns are numbers, one modality,
unless `config.data.channels` makes several of them: 'bio=age,bmi;lab=hb_*'.
"""

from pathlib import Path

import ml_collections
import numpy as np
import pandas as pd

from relief_jax.datasets import arrays
from relief_jax.datasets.channels import choose
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError
from relief_jax.files import paths

_TEST = 'official_test'


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Loads the table `config.data_path`.

  Args:
    config: `data_path`, `data.label`, `data.client`, `data.channels`.
    root: not used.

  Raises:
    InputError: no such file or column, or a column that is no number.
  """
  del root
  path = Path(paths.expand(config.data_path, 'config.data_path'))
  data = config.data
  return read(path, data.label, data.client, data.channels)


def read(path: Path, label: str, client: str, channels: str = '') -> Windows:
  """Reads a table.

  Args:
    path: of the file.
    label: column of what is predicted.
    client: column of whose row it is; '' for one client.
    channels: of several modalities (channels.py); '' for one.

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
  if words or values.empty:
    raise InputError(
      f'{path}: {f"no number in {words[0]!r}" if words else "no other column"}',
      'columns of numbers beside label and client',
      'make numbers of it, or leave it out',
    )
  x = values.to_numpy(np.float32)
  names = tuple(map(str, values.columns))
  parts = choose(channels, names, {'table': list(range(len(names)))})
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
  return arrays.windows(
    {m: x[:, numbers] for m, numbers in parts.items()},
    number,
    table[client].astype(str).to_numpy(str) if client else None,
    table[_TEST].to_numpy() > 0 if _TEST in table else None,
    classes,
  )
