"""HSplitLoRA: ranks by layer and device, exact merges, as an option a split.

relief run hsplitlora:smoke --workdir=runs/hsplitlora
relief run hsplitlora:transformer,deepest --workdir=runs/hsplitlora

Variants: smoke, paper, best, tight, full, transformer, deepest (of a model with
split points, such as the transformer: as many layers on a device as it can
train), apart (the same ranks, factors averaged apart).
"""

from relief_jax.config import presets


def deepest(c):
  """Leaves on a device as many layers as it can train."""
  c.hsplitlora.rule = 'deepest'


def apart(c):
  """Averages factors apart, as HetLoRA in split training does."""
  c.hsplitlora.merge = 'apart'


get_config = presets.adapted('hsplitlora', deepest=deepest, apart=apart)
