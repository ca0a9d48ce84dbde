"""FedDrop: a random sub-network per device and round, sized to its budget.

python -m experiments.main --config=experiments/configs/feddrop.py:smoke \
    --workdir=runs/feddrop

Variants: smoke, paper, best, tight, full, exact, all.
"""

from experiments.configs import common


def get_config(arg=None):
  """The config.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('feddrop', arg, exact=exact, all=everybody)


def exact(c):
  """Federated Dropout: the same number of units from every layer."""
  c.feddrop.exact = True


def everybody(c):
  """The mean over all devices, which the scaling of activations unbiases."""
  c.feddrop.denominator = 'all'
