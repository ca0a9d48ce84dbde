"""What a key of the config may name: the registries, looked up when asked.

Nothing lists their names a second time, so what a module of the user's own adds
(`ALGORITHMS['mine'] = ...`) may be named at once.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import ml_collections

from relief_jax import (
  algorithms,
  compressors,
  datasets,
  devices,
  models,
  optimizers,
  plugins,
)
from relief_jax.budgets import deadlines
from relief_jax.compressors import ternary
from relief_jax.config import assembly, table
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.keys import Key, flatten
from relief_jax.models import transformer
from relief_jax.online import missing, presence
from relief_jax.world import fleet_files, fleets, partition, splits


class Registry(NamedTuple):
  """Describes names, and texts that are taken beside them.

  Attributes:
    names: all of them now.
    also: whether a text that is no name is taken, too.
    others: what those texts are, '' where there are none.
    kind: where a user's module may add to it, and names may lead outside.
  """

  names: Callable[[], Iterable[str | int]]
  also: Callable[[str], bool] = lambda text: False
  others: str = ''
  kind: plugins.Kind | None = None


def _open(
  kind: plugins.Kind,
  first: tuple[str, ...] = (),
  also: Callable[[str], bool] = lambda text: False,
  others: str = '',
) -> Registry:
  return Registry(
    lambda: (*first, *plugins.names(kind)),
    also,
    others,
    kind,
  )


REGISTRIES = {
  'methods': _open(algorithms.KIND),
  'models': _open(models.KIND),
  'data sets': _open(datasets.KIND, ('auto',)),
  'fleets': _open(
    fleets.KIND,
    also=fleet_files.is_path,
    others='the path of a .csv or .json file',
  ),
  'codecs': _open(compressors.KIND),
  'transformers': Registry(lambda: transformer.PRESETS),
  'local optimisers': _open(optimizers.KIND),
  'ternary modes': Registry(lambda: ternary.MODES),
  'partitions': Registry(lambda: partition.KINDS),
  'splits': Registry(lambda: splits.KINDS),
  'missing': Registry(lambda: missing.KINDS),
  'presence': Registry(lambda: presence.KINDS),
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
  """Copies the content of all registries, the table of keys among them.

  What was found outside of this package is named where it is used.
  """
  return [
    dict(one)
    for one in (
      algorithms.ALGORITHMS,
      models.MODELS,
      datasets.DATASETS,
      fleets.FLEETS,
      devices.DEVICES,
      compressors.COMPRESSORS,
      optimizers.OPTIMIZERS,
      flatten(table.ROWS),
    )
  ]


def kind_of(row: Key) -> plugins.Kind | None:
  """Gives the kind of what a key names, where names may lead outside."""
  named = REGISTRIES.get(row.choices) if isinstance(row.choices, str) else None
  return named.kind if named else None


def meet(values: Mapping[str, Any]) -> dict[str, Any]:
  """Finds what values name outside of this package, before its keys are used.

  Args:
    values: by dotted key; others than names are passed over.

  Returns:
    The names among them by key, paths of files absolute.

  Raises:
    InputError: a name that leads nowhere.
  """
  found = {}
  for key, row in assembly.rows().items():
    kind, name = kind_of(row), values.get(key)
    if not kind or not isinstance(name, str):
      continue
    entry = name not in kind.own and name in plugins.names(kind)
    if plugins.is_reference(name) or entry:
      admit(kind, name)
      found[key] = plugins.absolute(name)
  return found


def settle(config: ml_collections.ConfigDict) -> None:
  """Finds what a config names outside of this package, and adds its keys.

  Args:
    config: changed in place; paths of files become absolute.

  Raises:
    InputError: a name that leads nowhere.
  """
  named = (key for key, row in assembly.rows().items() if kind_of(row))
  found = meet({key: assembly.get(config, key) for key in named})
  config.update_from_flattened_dict(found)
  assembly.complete(config, config.method)


def admit(kind: plugins.Kind, name: str) -> None:
  """Finds a name outside of this package, with keys that have a place.

  Raises:
    InputError: it leads nowhere, or brings keys that are there already.
  """
  plugins.find(kind, name)
  try:
    assembly.tree()
  except InputError:
    plugins.forget(kind, name)
    raise
