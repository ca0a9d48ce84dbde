"""Reads when devices are there, in FedScale's records of availability.

FedScale (Lai et al., 2022, https://arxiv.org/abs/2105.11367) publishes when
phones are available as a record per client, in seconds:

    {"0": {"active": [0, 7200], "inactive": [3600, 9000], "finish_time": 86400,
           "duration": 5400, "model": "a phone"}, ...}

It is there from active[i] until inactive[i], and all begins again after
`finish_time`. Theirs are pickles, which run what is in them: here the same
records are JSON. **Ours**: a round begins every `round_seconds` of the trace,
and who is there at that second takes part; the second of `inactive` is away.
"""

import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from relief_jax.errors import InputError
from relief_jax.files import paths, text_files
from relief_jax.online import clock
from relief_jax.online.clock import LONGEST, Clock
from relief_jax.types import Array

_KEYS = ('active', 'inactive', 'finish_time')
_MORE = ('duration', 'model')


class Windows(NamedTuple):
  """Holds the windows in which devices are there; in seconds, int32.

  Attributes:
    start: [N, W] of every window.
    end: [N, W] behind its last second; `start` where there is none.
    clock: of the records.
  """

  start: Array
  end: Array
  clock: Clock


def read(path: str, clients: int, seconds: int) -> Windows:
  """Reads the windows of the first `clients` records.

  Args:
    path: of a JSON file.
    clients: N.
    seconds: from a round to the next.

  Raises:
    InputError: no such file, fewer records, or windows that are none.
  """
  path = paths.expand(path, 'config.online.presence.path')
  records = text_files.load_json(path)
  if not isinstance(records, dict) or len(records) < clients:
    found = len(records) if isinstance(records, dict) else 'no object of'
    raise InputError(
      f'{path}: {found} records for {clients} devices',
      'an object with a record for every device',
      'lower --config.clients, or take a longer trace',
    )
  chosen = list(itertools.islice(records.items(), clients))
  each = [_windows(record, f'{path}, record {key!r}') for key, record in chosen]
  most = max(1, *(len(windows) for windows, _ in each))
  bounds = np.zeros((2, clients, most), np.int32)
  for n, (windows, _) in enumerate(each):
    if windows:
      bounds[:, n, : len(windows)] = np.transpose(windows)
  period = np.array([period for _, period in each], np.int64)
  return Windows(
    start=jnp.asarray(bounds[0]),
    end=jnp.asarray(bounds[1]),
    clock=clock.make(period, seconds),
  )


def here(found: Windows, place: Array, round_index: Array) -> Array:
  """Tells whether each participant is there when a round begins, [K] bool.

  Args:
    found: of all clients.
    place: [K] places in the population.
    round_index: [] int32.
  """
  now = clock.second(found.clock, place, round_index)[:, None]
  return ((found.start[place] <= now) & (now < found.end[place])).any(-1)


def _windows(record: Any, where: str) -> tuple[list[tuple[int, int]], int]:
  """Reads a record: windows in increasing order, and the period."""
  known = isinstance(record, dict) and all(key in record for key in _KEYS)
  if not known or set(record) - {*_KEYS, *_MORE}:
    raise InputError(
      f'{where}: {sorted(record) if isinstance(record, dict) else record!r}',
      f'{", ".join(_KEYS)}, and {", ".join(_MORE)} if known',
      "check the record's keys",
    )
  period = record['finish_time']
  starts, ends = record['active'], record['inactive']
  if not clock.valid(period) or period < 1:
    raise InputError(
      f'{where}, finish_time: {period!r}',
      f'whole seconds from 1 to {LONGEST}',
      'cut the trace, or check the unit',
    )
  lists = isinstance(starts, list) and isinstance(ends, list)
  if not lists or len(starts) != len(ends):
    raise InputError(
      f'{where}: active and inactive that do not pair',
      'two lists of equally many seconds',
      'end the last window at finish_time',
    )
  flat = [v for pair in zip(starts, ends, strict=True) for v in pair]
  inside = all(map(clock.valid, flat)) and all(v <= period for v in flat)
  if not inside or sorted(flat) != flat:
    raise InputError(
      f'{where}: windows out of order, or beyond finish_time={period}',
      'active[0] <= inactive[0] <= active[1] <= ... in whole seconds',
      'sort the windows, or check the unit',
    )
  return list(zip(starts, ends, strict=True)), period
