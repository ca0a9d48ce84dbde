"""Harmony: a federation per modality, then classifiers per combination.

python -m experiments.main --config=experiments/configs/harmony.py:smoke \
    --workdir=runs/harmony

Variants: smoke, paper, best, lora, tight, full, one.
"""

from experiments.configs import common


def get_config(arg=None):
  """The config; two thirds of the rounds are the first stage.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('harmony', arg, lora=lora, one=one)


def lora(c):
  """As elsewhere, with adapters in the encoders: they become personal."""
  common.lora(c)
  c.model.adapters = True


def one(c):
  """One cluster per combination of sensors, however many devices have it."""
  c.harmony.members = 10**6
