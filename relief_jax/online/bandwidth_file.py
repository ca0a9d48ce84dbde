"""Reads how fast devices' links are over time, from a CSV file. **Ours.**

    device,second,uplink_mbps,downlink_mbps
    phone-7,0,12.5,40
    phone-7,600,0.8,3.1
    watch-2,0,2,5

From its second on a device's links have these bit rates, until its next line.
Units stand in the names, as in `devices/figures.py`; a link without a column
stays as the data sheet says. Lines of a device are in order and begin at second
0. Behind its last line, which lasts as long as the one before (2,000,000 s in
all at the most), its trace begins again; of one line alone nothing changes. The
n-th device of the file is the n-th of the fleet.
"""

import csv
import io
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from relief_jax.devices import figures
from relief_jax.errors import InputError
from relief_jax.files import paths, text_files
from relief_jax.online import clock
from relief_jax.online.clock import Clock
from relief_jax.types import Array

_LINKS = ('uplink', 'downlink')
_CURE = 'see relief_jax/online/bandwidth_file.py'


class Bandwidth(NamedTuple):
  """Holds the bit rates of links over time.

  Attributes:
    clock: of the traces.
    start: [N, W] int32, second from which an entry holds; beyond any second
      where there is none.
    rates: link -> [N, W] float32 bit/s.
  """

  clock: Clock
  start: Array
  rates: dict[str, Array]


def read(path: str, clients: int, seconds: int) -> Bandwidth:
  """Reads the traces of the first `clients` devices of a file.

  Args:
    path: of a CSV file with a header.
    clients: N.
    seconds: of the trace from a round to the next.

  Raises:
    InputError: no such file, columns or lines that are none, fewer devices.
  """
  path = paths.expand(path, 'config.online.pace.path')
  lines, links = _lines(path)
  if len(lines) < clients:
    raise InputError(
      f'{path}: {len(lines)} devices for {clients}',
      'lines of every device',
      'lower --config.clients, or take a longer trace',
    )
  each = list(lines.values())[:clients]
  most = max(map(len, each))
  start = np.full((clients, most), clock.LONGEST + 1, np.int32)
  rates = {link: np.ones((clients, most), np.float32) for link in links}
  period = np.ones(clients, np.int64)
  for n, own in enumerate(each):
    at = [second for second, _ in own]
    start[n, : len(own)] = at
    if len(own) > 1:
      period[n] = min(2 * at[-1] - at[-2], clock.LONGEST)
    for link in links:
      rates[link][n, : len(own)] = [values[link] for _, values in own]
  return Bandwidth(
    clock.make(period, seconds),
    jnp.asarray(start),
    {link: jnp.asarray(values) for link, values in rates.items()},
  )


def at(found: Bandwidth, place: Array, round_index: Array) -> dict[str, Array]:
  """Gives the bit rates of a round, link -> [K].

  Args:
    found: of all clients.
    place: [K] places in the population.
    round_index: [] int32.
  """
  now = clock.second(found.clock, place, round_index)
  entry = (found.start[place] <= now[:, None]).sum(-1) - 1
  return {link: values[place, entry] for link, values in found.rates.items()}


def _lines(path: str):
  """Reads {device: [(second, {link: bit/s})]} and the links."""
  try:
    rows = csv.DictReader(io.StringIO(text_files.read(path), newline=''))
    columns = rows.fieldnames or []
    links = {
      column: column.partition('_')[0]
      for column in columns
      if column not in ('device', 'second')
    }
    named = list(links.values())
    if (
      not {'device', 'second'} <= set(columns)
      or not named
      or len({*columns}) < len(columns)
      or sorted(named) != sorted(set(named) & set(_LINKS))
    ):
      raise InputError(
        f'{path}: columns {", ".join(columns) or "none"}',
        'device, second, and uplink_mbps or downlink_mbps or both',
        _CURE,
      )
    found: dict[str, list] = {}
    for number, row in enumerate(rows, 2):
      where = f'{path}, line {number}'
      second = _second(row, found.setdefault(row['device'], []), where)
      values = dict(figures.parse(c, row[c], where) for c in links)
      found[row['device']].append((second, values))
  except csv.Error as error:
    raise InputError(f'{path}: {error}', 'lines of CSV', _CURE) from None
  return found, tuple(named)


def _second(row: dict, before: list, where: str) -> int:
  """Reads the second of a line."""
  text = row['second'] or ''
  second = int(text) if text.strip().isdecimal() else -1
  least = before[-1][0] + 1 if before else 0
  first = not before and second != 0
  if row.get(None) or not clock.valid(second) or second < least or first:
    raise InputError(
      f'{where}: second {text!r} of device {row["device"]!r}',
      f'0 first, then growing whole numbers up to {clock.LONGEST}, and as many '
      'fields as the header has',
      _CURE,
    )
  return second
