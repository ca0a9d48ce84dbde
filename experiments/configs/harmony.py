"""Harmony: a federation per modality, then classifiers per combination.

python -m experiments.main --config=experiments/configs/harmony.py:smoke \
    --workdir=runs/harmony

Variants: smoke, paper, best, lora, tight, full, one.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of Harmony; two thirds of the rounds are stage 1.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('harmony', arg, lora=lora, one=one)


def lora(c):
  """Freezes the base, with adapters in the encoders: they become personal."""
  common.lora(c)
  c.model.adapters = True


def one(c):
  """Makes one cluster per combination of sensors, of however many devices."""
  c.harmony.members = 10**6
