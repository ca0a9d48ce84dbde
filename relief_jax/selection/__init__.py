"""Chooses who takes part in a round: one file each, `(View, size) -> Picked`.

Beside these rules there is `random`, the draw of `rounds/cohort.py`, which
keeps no record and knows no device.
"""

from typing import Any, NamedTuple

from relief_jax.selection import fedjoule_style, oort_style, round_robin
from relief_jax.selection.record import Rule, key

SELECTION: dict[str, Rule] = {
  'round_robin': round_robin.round_robin,
  'oort_style': oort_style.oort_style,
  'fedjoule_style': fedjoule_style.fedjoule_style,
}
RANDOM = 'random'
NAMES = (RANDOM, *SELECTION)


class Reads(NamedTuple):
  """Describes what a rule looks at.

  Attributes:
    keys: of `config.selection`; hyperparameters `selection.KEY`.
    told: bytes that a participant sends for it: its loss, its joules.
    trained: it looks at losses, so that nothing is known without training.
  """

  keys: tuple[str, ...] = ()
  told: float = 0.0
  trained: bool = False


READS = {
  RANDOM: Reads(),
  'round_robin': Reads(),
  'oort_style': Reads(
    oort_style.KEYS,
    told=4.0,
    trained=True,
  ),
  'fedjoule_style': Reads(fedjoule_style.KEYS, told=8.0, trained=True),
}


def values(config: Any) -> dict[str, float]:
  """Gives the hyperparameters of a config's rule, by name.

  Args:
    config: `config.selection`.
  """
  return {key(k): float(config[k]) for k in READS[config.rule].keys}
