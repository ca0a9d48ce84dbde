"""Reads a citable device file: every figure with unit, source and how found.

**Ours.** A JSON object; nothing in it may be left out but `memory` and a note:

    {
      "format": 1,
      "name": "my_board",
      "version": "1",
      "title": "My board at 1 GHz, training on its CPU",
      "figures": {
        "peak": {"value": 8, "unit": "Gflop/s", "how": "computed",
                 "source": "vendor's data sheet", "note": "4 cores x 2"},
        "efficiency": ..., "active": ..., "sending": ..., "receiving": ...,
        "idle": ..., "uplink": ..., "downlink": ...
      }
    }

Quantities are those of `base.Device`. `version` counts up when a figure
changes, so that a name and a version cite numbers. `source` is a document, or
`none` where a figure is only ours.
"""

import math
from collections.abc import Mapping
from typing import Any

from relief_jax.devices.base import Device
from relief_jax.errors import InputError

FORMAT = 1
HOW = ('data sheet', 'computed', 'measured', 'measured by others', 'ours')
_RATE = {'flop/s': 1.0, 'Mflop/s': 1e6, 'Gflop/s': 1e9, 'Tflop/s': 1e12}
_POWER = {'W': 1.0, 'mW': 1e-3}
_LINK = {'bit/s': 1.0, 'kbit/s': 1e3, 'Mbit/s': 1e6, 'Gbit/s': 1e9}
_BYTES = {'B': 1.0, 'kB': 1e3, 'MB': 1e6, 'GB': 1e9}
UNITS: dict[str, dict[str, float]] = {
  'peak': _RATE,
  'efficiency': {'1': 1.0},
  'active': _POWER,
  'sending': _POWER,
  'receiving': _POWER,
  'idle': _POWER,
  'uplink': _LINK,
  'downlink': _LINK,
  'memory': _BYTES,
}
_LEFT_OUT = ('memory',)
_HEAD = ('format', 'name', 'version', 'title', 'figures')
_FIGURE = ('value', 'unit', 'how', 'source')


def is_cited(values: Any) -> bool:
  """Tells whether the content of a device file is of this format."""
  return isinstance(values, dict) and 'figures' in values


def to_device(values: Mapping[str, Any], where: str) -> Device:
  """Builds a profile from the content of a file.

  Args:
    values: of the file.
    where: its name, for the message.

  Raises:
    InputError: a key too many or too few, another format, an unknown unit or
      way, or a number that no device has.
  """
  _keys(values, _HEAD, (), where)
  if values['format'] != FORMAT:
    raise InputError(
      f'{where}: format {values["format"]!r}',
      f'{FORMAT}, that of this version of relief_jax',
      'see relief_jax/devices/cited.py',
    )
  for key in ('name', 'version', 'title'):
    _text(values, key, where)
  figures = values['figures']
  if not isinstance(figures, dict):
    raise InputError(
      f'{where}, figures: {type(figures).__name__}',
      'an object, a figure by quantity',
      'see relief_jax/devices/cited.py',
    )
  needed = tuple(name for name in UNITS if name not in _LEFT_OUT)
  _keys(figures, needed, _LEFT_OUT, f'{where}, figures')
  return Device(
    **{
      name: _figure(name, figure, f'{where}, {name}')
      for name, figure in figures.items()
    }
  )


def _figure(name: str, figure: Any, where: str) -> float:
  """Reads one figure in basic units."""
  if not isinstance(figure, dict):
    raise InputError(
      f'{where}: {figure!r} alone',
      f'an object of {", ".join(_FIGURE)}, so that it can be cited',
      'add its unit, how it was found and its source',
    )
  _keys(figure, _FIGURE, ('note',), where)
  for key in ('source', *(['note'] if 'note' in figure else [])):
    _text(figure, key, where)
  _one_of(figure['unit'], UNITS[name], f'{where}, unit')
  _one_of(figure['how'], HOW, f'{where}, how')
  value, unit = figure['value'], UNITS[name][figure['unit']]
  plain = isinstance(value, int | float) and not isinstance(value, bool)
  number = float(value) * unit if plain and abs(value) < 1e30 else math.nan
  most = 1.0 if name == 'efficiency' else math.inf
  if not 0 < number <= most or not math.isfinite(number):
    raise InputError(
      f'{where}: {value!r} {figure["unit"]}',
      'a number above 0' + ' and at most 1' * (name == 'efficiency'),
      'check the number and its unit',
    )
  return number


def _keys(
  found: Mapping[str, Any],
  needed: tuple[str, ...],
  more: tuple[str, ...],
  where: str,
) -> None:
  """Refuses keys that are not known, and those that are missing."""
  unknown = [key for key in found if key not in needed + more]
  missing = [key for key in needed if key not in found]
  if unknown or missing:
    raise InputError(
      f'{where}: '
      + (f'unknown key {unknown[0]!r}' if unknown else f'no {missing[0]!r}'),
      f'the keys {", ".join(needed)}'
      + (f', and {", ".join(more)} if known' if more else ''),
      'check the spelling' if unknown else f'add {missing[0]!r}',
    )


def _text(values: Mapping[str, Any], key: str, where: str) -> None:
  if not isinstance(values[key], str) or not values[key].strip():
    raise InputError(
      f'{where}, {key}: {values[key]!r}', 'a text', f'say what {key} it is'
    )


def _one_of(value: Any, known, where: str) -> None:
  if not isinstance(value, str) or value not in known:
    raise InputError(
      f'{where}: {value!r}', f'one of {", ".join(known)}', 'write one of them'
    )
