"""FedProx: FedAvg with a proximal term (--config.hparams.prox).

python -m experiments.main --config=experiments/configs/fedprox.py:smoke \
    --workdir=runs/fedprox

Variants: smoke, paper, best, lora, tight, full.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of FedProx, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  return common.method('fedprox', arg)
