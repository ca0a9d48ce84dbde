"""ElasticTrainer in FL: trains what lowers the loss most, within the deadline.

relief run elastic_fl:smoke --workdir=runs/elastic_fl

Variants: smoke, paper, best, lora, tight, full.
"""

from relief_jax.config import presets


def get_config(arg=None):
  """Builds the config of ElasticTrainer in FL; every layer is a tensor.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.method('elastic_fl', arg)
  c.model.groups = 'layer'
  return c
