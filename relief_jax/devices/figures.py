"""Reads figures of a device from a file, each with a unit in its name.

**Ours.**

A figure is a quantity, an underscore and a unit: `speed_gflops`, `active_w`,
`uplink_mbps`. All of a device's figures:

- `speed_`: sustained rate of *training*, in flops, mflops, gflops or tflops
  (FLOP/s);
- `active_`, `sending_`, `receiving_`, `idle_`: power, in mw or w;
- `uplink_`, `downlink_`: in bps, kbps, mbps or gbps (bit/s, not byte/s);
- `memory_`, which may be left out: for training, in kb, mb or gb (bytes);
  without it there is no bound.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from relief_jax.devices import cited
from relief_jax.devices.base import Device
from relief_jax.errors import InputError
from relief_jax.files import text_files

_RATE = {'flops': 1.0, 'mflops': 1e6, 'gflops': 1e9, 'tflops': 1e12}
_POWER = {'mw': 1e-3, 'w': 1.0}
_BYTES = {'kb': 1e3, 'mb': 1e6, 'gb': 1e9}
_LINK = {'bps': 1.0, 'kbps': 1e3, 'mbps': 1e6, 'gbps': 1e9}
UNITS = {
  'speed': _RATE,
  'active': _POWER,
  'sending': _POWER,
  'receiving': _POWER,
  'idle': _POWER,
  'uplink': _LINK,
  'downlink': _LINK,
}
_OPTIONAL = {'memory': _BYTES}
# What no device is, to catch a wrong unit: FLOP/s, W, bit/s, bytes.
LARGEST = 1 << 24  # bytes of a file of figures or of a fleet
_BOUNDS = {
  'flops': (1e5, 1e15),
  'w': (1e-5, 1e5),
  'bps': (1e2, 1e12),
  'kb': (1e3, 1e13),
}


def parse(key: str, value: Any, where: str) -> tuple[str, float]:
  """Converts one figure to basic units.

  >>> parse('uplink_mbps', '20', 'row 2')
  ('uplink', 20000000.0)

  Args:
    key: quantity and unit.
    value: a number, also as text.
    where: for the message, such as 'fleet.csv, row 2'.

  Returns:
    The quantity's name and its value in FLOP/s, W, bit/s or bytes.

  Raises:
    InputError: an unknown quantity or unit, or no plausible number.
  """
  quantity, _, unit = key.partition('_')
  known = {**UNITS, **_OPTIONAL}
  if quantity not in known:
    raise InputError(
      f'{where}: unknown column {key!r}',
      f'a figure such as {", ".join(_examples())}',
      'check the spelling',
    )
  units = known[quantity]
  if unit not in units:
    raise InputError(
      f'{where}, column {key!r}: no known unit',
      f'one of {", ".join(f"{quantity}_{u}" for u in units)}',
      f'write the unit into the name, {quantity}_{list(units)[-1]}',
    )
  try:
    number = math.nan if isinstance(value, bool) else float(value)
  except (TypeError, ValueError):
    number = math.nan
  low, high = _BOUNDS[next(u for u in _BOUNDS if u in units)]
  result = number * units[unit]
  if not low <= result <= high:  # NaN too
    raise InputError(
      f'{where}, column {key!r}: {value!r}',
      f'a number from {low / units[unit]:g} to {high / units[unit]:g} {unit}',
      'check the number and its unit',
    )
  return quantity, result


def _examples():
  return [f'{q}_{list(u)[-1]}' for q, u in UNITS.items()]


def to_device(
  values: Mapping[str, Any], where: str, base: Device | None = None
) -> Device:
  """Builds a profile from figures.

  Args:
    values: {key: value} as `parse` reads them.
    where: for the message.
    base: gives the figures that are missing, None if all must be there.

  Raises:
    InputError: as `parse`; a figure missing, or given twice.
  """
  found: dict[str, float] = {}
  for key, value in values.items():
    quantity, number = parse(key, value, where)
    if quantity in found:
      raise InputError(
        f'{where}, column {key!r}: {quantity} given twice',
        'one unit for each figure',
        'keep one of the columns',
      )
    found[quantity] = number
  missing = [q for q in UNITS if q not in found]
  if missing and base is None:
    raise InputError(
      f'{where}: no {missing[0]}',
      f'all of {", ".join(_examples())}, or a device to take them from',
      f'add the column {missing[0]}_{list(UNITS[missing[0]])[-1]}, or device',
    )
  if 'speed' in found:
    found['peak'], found['efficiency'] = found.pop('speed'), 1.0
  return base._replace(**found) if base else Device(**found)


def read(path: str | pathlib.Path) -> Device:
  """Reads a profile, ours or one that a user wrote.

  Args:
    path: of a JSON object, a citable one (devices/cited.py) or figures alone;
      of these the keys `name`, `note` and `fit` are none.

  Raises:
    InputError: no such file, no JSON object, or wrong figures.
  """
  values = load_json(path)
  if not isinstance(values, dict):
    raise InputError(
      f'{path}: {type(values).__name__}',
      'an object of figures',
      'see relief_jax/devices/figures.py for the keys',
    )
  if cited.is_cited(values):
    return cited.to_device(values, str(path))
  figures = {k: v for k, v in values.items() if k not in _NOT_FIGURES}
  return to_device(figures, str(path))


_NOT_FIGURES = ('name', 'note', 'fit')


def load_json(path: str | pathlib.Path) -> Any:
  """Reads the content of a JSON file.

  Raises:
    InputError: it cannot be read, or is no JSON (line and column are named).
  """
  return text_files.load_json(path, LARGEST)
