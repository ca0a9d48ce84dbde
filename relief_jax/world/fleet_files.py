"""Fleets of the user's own, from CSV or JSON. **Ours.**

One row per kind of device (a *tier*), or one per device. As CSV:

    name,share,sensors,device,speed_gflops
    band,70,acc+gyro,cortex_m7,
    phone,30,all,jetson_nano,12.5

As JSON: a list of objects with the same keys; `sensors` may be a list.

- `name`: for reports, once each.
- `share`: percent, adding up to 100; the fleet comes in any size. Or `count`:
  devices of that kind; the fleet then comes in one size, their sum.
- `sensors`: names of the data set's modalities joined by `+`; `all`; or `1/2`,
  the first half of them, rounded up.
- `device`: a profile, by its name in `devices.DEVICES` or as the path of a JSON
  file (from the fleet file's folder) with the figures of `devices/figures.py`.
- `source`: where the share is from, kept in the run's summary.json.
- figures with their units, as `devices/figures.py` lists them, `memory_mb`
  among them. Those given
  replace the profile's; without `device` all seven are needed.

An empty field means that the key is not there.
"""

import csv
import io
import pathlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from relief_jax.devices import Device, device, figures
from relief_jax.errors import InputError
from relief_jax.files import paths, text_files
from relief_jax.world.tiers import Tier, Tiers

_LARGEST = 1e9  # devices
_KEYS = ('name', 'share', 'count', 'sensors', 'device', 'source')


def is_path(name: str) -> bool:
  """Tells whether a fleet's name is that of a file."""
  return name.endswith(('.csv', '.json'))


def read(path: str) -> Tiers:
  """Reads a fleet from a file.

  Args:
    path: ends in .csv or .json.

  Returns:
    Tiers, in the order of the file.

  Raises:
    InputError: no such file; names the row and the column of what is wrong.
  """
  path = paths.expand(path, 'config.fleet')
  rows = _csv(path) if path.endswith('.csv') else _json(path)
  if not rows:
    raise InputError(f'{path}: no row', 'one per kind of device', 'add one')
  counted = 'count' in rows[0][1]
  amount = 'count' if counted else 'share'
  folder = pathlib.Path(path).parent
  tiers = []
  seen: dict[str, str] = {}
  for where, row in rows:
    name = str(_need(row, 'name', where))
    if name in seen:
      raise _wrong(where, 'name', name, f'a name not used in {seen[name]}')
    seen[name] = where.rpartition(', ')[2]
    other = 'share' if counted else 'count'
    if other in row:
      raise _wrong(
        where, other, row[other], f'{amount} in every row, as in the first'
      )
    part, sensors = _sensors(_need(row, 'sensors', where), where)
    tiers.append(
      Tier(
        name=name,
        share=_amount(_need(row, amount, where), counted, where),
        part=part,
        device=_device(row, folder, where),
        sensors=sensors,
        source=str(row.get('source', '')),
      )
    )
  total = sum(tier.share for tier in tiers)
  if not counted and total != 100:
    raise InputError(
      f'{path}, column share: a sum of {float(total):g}',
      '100 percent',
      'correct the shares, or give counts in a column `count`',
    )
  return Tiers(tuple(tiers), int(total) if counted else 0)


def sources(path: str) -> list[pathlib.Path]:
  """Lists the files that `read` reads: the fleet, then the user's own devices.

  Args:
    path: ends in .csv or .json.

  Raises:
    InputError: rows that cannot be read.
  """
  found = [pathlib.Path(path)]
  if not found[0].exists():
    return found
  rows = _csv(path) if path.endswith('.csv') else _json(path)
  devices = dict.fromkeys(str(row.get('device')) for _, row in rows)
  own = (name for name in devices if name.endswith('.json'))
  return found + [found[0].parent / name for name in own]


def _wrong(where: str, column: str, found: Any, expected: str) -> InputError:
  return InputError(
    f'{where}, column {column}: {found!r}', expected, 'correct that field'
  )


def _need(row: dict[str, Any], key: str, where: str) -> Any:
  if key not in row:
    raise InputError(
      f'{where}, column {key}: nothing',
      f'a {key} in every row',
      'fill in that field',
    )
  return row[key]


def _csv(path: str) -> list[tuple[str, dict[str, Any]]]:
  """Reads rows with their places; row numbers are those of a spreadsheet."""
  text = io.StringIO(text_files.read(path, figures.LARGEST), newline='')
  try:
    lines = list(csv.reader(text, skipinitialspace=True, strict=True))
  except csv.Error as error:
    raise InputError(
      f'{path}: {error}', 'comma-separated UTF-8 text', 'save it so'
    ) from error
  if not lines:
    return []
  header = [key.strip().lower() for key in lines[0]]
  if len(header) == 1 and ';' in header[0]:
    raise InputError(
      f'{path}, row 1: columns separated by semicolons',
      'commas',
      'save it comma-separated',
    )
  for key in header:
    if header.count(key) > 1:
      raise InputError(
        f'{path}, row 1, column {key!r}: there twice',
        'every column once',
        'remove one',
      )
  rows = []
  for number, line in enumerate(lines[1:], 2):
    where = f'{path}, row {number}'
    if not any(field.strip() for field in line):
      continue
    if len(line) != len(header):
      raise InputError(
        f'{where}: {len(line)} fields',
        f'{len(header)}, as in the first row',
        'leave a field empty rather than out',
      )
    fields = zip(header, map(str.strip, line), strict=True)
    rows.append((where, {k: v for k, v in fields if v}))
  return rows


def _json(path: str) -> list[tuple[str, dict[str, Any]]]:
  values = figures.load_json(path)
  if not isinstance(values, list):
    raise InputError(
      f'{path}: {type(values).__name__}',
      'a list of objects, one per kind of device',
      'put it into [ ]',
    )
  rows = []
  for number, value in enumerate(values, 1):
    where = f'{path}, row {number}'
    if not isinstance(value, dict):
      raise InputError(
        f'{where}: {value!r}', 'an object', 'write {"name": ..., ...}'
      )
    rows.append(
      (where, {k: v for k, v in value.items() if v not in ('', None)})
    )
  return rows


def _amount(value: Any, counted: bool, where: str) -> int | Fraction:
  """Reads a percentage, exact, or a number of devices."""
  column = 'count' if counted else 'share'
  number = _fraction(value)
  whole = number.denominator == 1
  if number <= 0 or (counted and not whole):
    expected = 'a whole number above 0' if counted else 'percent above 0'
    raise _wrong(where, column, value, expected)
  return int(number) if whole else number


def _fraction(value: Any) -> Fraction:
  """Reads an exact number from text, 0 for what is none or far too large."""
  text = str(value)
  try:
    # Fraction('1e999999999') would write out all of its digits.
    if '/' not in text and not 1e-9 < abs(float(text)) < _LARGEST:
      return Fraction(0)
    return Fraction(text)
  except (ValueError, ZeroDivisionError):
    return Fraction(0)


def _sensors(value: Any, where: str) -> tuple[Fraction, tuple[str, ...]]:
  """Reads the part of the modalities or their names, one of which counts."""
  if value == 'all':
    return Fraction(1), ()
  if isinstance(value, str) and '/' in value:
    part = _fraction(value)
    if not 0 < part <= 1:
      raise _wrong(where, 'sensors', value, 'a part such as 1/2')
    return part, ()
  names = value.split('+') if isinstance(value, str) else value
  expected = "names such as acc+gyro, 'all', or a part such as 1/2"
  if not isinstance(names, list) or not names:
    raise _wrong(where, 'sensors', value, expected)
  names = [str(name).strip() for name in names]
  if not all(names) or len(set(names)) < len(names):
    raise _wrong(where, 'sensors', value, 'every name once')
  return Fraction(1), tuple(names)


def _device(row: dict[str, Any], folder: pathlib.Path, where: str) -> Device:
  """Builds the device profile of a row from its own figures."""
  values = {k: v for k, v in row.items() if k not in _KEYS}
  name = row.get('device')
  if name is None:
    return figures.to_device(values, where)
  if not isinstance(name, str):
    raise _wrong(where, 'device', name, 'a name, or the path of a JSON file')
  load: Callable[..., Device] = device
  if str(name).endswith('.json'):
    name, load = folder / paths.expand(name, 'device'), figures.read
  try:
    base = load(name)
  except InputError as error:
    raise InputError(
      f'{where}, column device: {name!s}',
      'a device that can be read',
      str(error).rstrip('.'),
    ) from error
  return figures.to_device(values, where, base)
