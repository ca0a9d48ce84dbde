"""What a key of the config may name: the registries, looked up when asked.

Nothing lists their names a second time, so what a module of the user's own adds
(`ALGORITHMS['mine'] = ...`) may be named at once.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from relief_jax import (
  algorithms,
  compressors,
  datasets,
  devices,
  models,
)
from relief_jax.algorithms import pmm, relief
from relief_jax.budgets import deadlines
from relief_jax.compressors import ternary
from relief_jax.config import table
from relief_jax.engine import placement
from relief_jax.online import missing, presence
from relief_jax.world import fleet_files, fleets, partition, splits


class Registry(NamedTuple):
  """Describes names, and texts that are taken beside them.

  Attributes:
    names: all of them now.
    also: whether a text that is no name is taken, too.
    others: what those texts are, '' where there are none.
    grows: a user's module may add to it.
  """

  names: Callable[[], Iterable[str | int]]
  also: Callable[[str], bool] = lambda text: False
  others: str = ''
  grows: bool = False


REGISTRIES = {
  'methods': Registry(lambda: algorithms.ALGORITHMS, grows=True),
  'models': Registry(lambda: models.MODELS, grows=True),
  'data sets': Registry(lambda: ('auto', *datasets.DATASETS), grows=True),
  'fleets': Registry(
    lambda: fleets.FLEETS,
    fleet_files.is_path,
    'the path of a .csv or .json file',
    grows=True,
  ),
  'codecs': Registry(lambda: compressors.COMPRESSORS, grows=True),
  'ternary modes': Registry(lambda: ternary.MODES),
  'partitions': Registry(lambda: partition.KINDS),
  'splits': Registry(lambda: splits.KINDS),
  'missing': Registry(lambda: missing.KINDS),
  'presence': Registry(lambda: presence.KINDS),
  'relief rules': Registry(lambda: relief.RULES),
  'prototype bits': Registry(lambda: pmm.BITS),
  'deadlines': Registry(
    lambda: deadlines.KINDS, deadlines.is_number, deadlines.NUMBERS
  ),
  'deadlines at the end': Registry(
    lambda: ('', *deadlines.KINDS), deadlines.is_number, deadlines.NUMBERS
  ),
  'layouts': Registry(
    lambda: placement.NAMES, placement.is_layout, placement.OTHERS
  ),
}


def contents() -> list[dict]:
  """What all registries hold now, the table of keys among them; a copy."""
  return [
    dict(one)
    for one in (
      algorithms.ALGORITHMS,
      algorithms.DEFAULT_FILL,
      models.MODELS,
      datasets.DATASETS,
      fleets.FLEETS,
      devices.DEVICES,
      compressors.COMPRESSORS,
      table.rows(),
    )
  ]
