"""SplitFed V2: the server serves one device after another.

relief run splitfed_v2:smoke --workdir=runs/splitfed_v2

Variants: smoke, paper, best, lora, tight, full, transformer, queue.
"""

from relief_jax.config import presets


def get_config(arg=None):
  """Builds the config; every layer can be split off.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.method('splitfed_v2', arg, transformer=transformer, queue=queue)
  c.model.groups = 'layer'
  return c


def transformer(c):
  """Takes the small transformer, whose embeddings are the first layer."""
  c.backbone = 'transformer'


def queue(c):
  """Serves devices as they come, where the time of a step is concerned."""
  c.splitfed_v2.server_order = 'queue'
