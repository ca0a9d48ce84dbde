"""RELIEF: blocks averaged over the cohort that trained them, within budgets.

relief run relief:smoke --workdir=runs/relief

Variants: smoke, paper, best, lora, tight, full, and one for every selection
rule: greedy, greedy_ratio, knapsack, aged, random, round_robin, magnitude,
static.
"""

import functools

from relief_jax.algorithms import relief
from relief_jax.config import presets


def rule(name, c):
  """Selects which groups a device trains by another rule."""
  c.relief.rule = name


def get_config(arg=None):
  """Builds the config of RELIEF, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  rules = {name: functools.partial(rule, name) for name in relief.RULES}
  return presets.method('relief', arg, **rules)
