"""FedAvg: fills absent sensors, trains and uploads everything.

python -m experiments.main --config=experiments/configs/fedavg.py:smoke \
    --workdir=runs/fedavg

Variants: smoke, paper, best, lora, tight, full, skip.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of FedAvg, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('fedavg', arg, skip=skip)


def skip(c):
  """Skips absent branches: FedAvg without its largest waste."""
  c.fill = 'skip'
