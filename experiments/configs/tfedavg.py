"""T-FedAvg: ternary weights on the device and on both links.

python -m experiments.main --config=experiments/configs/tfedavg.py:smoke \
    --workdir=runs/tfedavg

Variants: smoke, paper, best, lora, tight, full, released.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of T-FedAvg, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('tfedavg', arg, released=released)


def released(c):
  """Takes the threshold of the released code."""
  c.tfedavg.mode = 'released'
