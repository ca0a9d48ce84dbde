"""ElasticTrainer in FL: trains what lowers the loss most, within the deadline.

python -m experiments.main --config=experiments/configs/elastic_fl.py:smoke \
    --workdir=runs/elastic_fl

Variants: smoke, paper, best, lora, tight, full.
"""

from experiments.configs import common


def get_config(arg=None):
  """Builds the config of ElasticTrainer in FL; every layer is a tensor.

  Raises:
    InputError: an unknown variant.
  """
  c = common.method('elastic_fl', arg)
  c.model.groups = 'layer'
  return c
