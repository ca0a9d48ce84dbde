"""FedDrop: a random sub-network per device and round, sized to its budget.

python -m experiments.main --config=experiments/configs/feddrop.py:smoke \
    --workdir=runs/feddrop

Variants: smoke, paper, best, tight, full, exact, all.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of FedDrop, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('feddrop', arg, exact=exact, all=everybody)


def exact(c):
  """Draws the same number of units from every layer: Federated Dropout."""
  c.feddrop.exact = True


def everybody(c):
  """Averages over all devices, which the scaling of activations unbiases."""
  c.feddrop.denominator = 'all'
