"""FedAvg: fills absent sensors, trains and uploads everything.

relief run fedavg:smoke --workdir=runs/fedavg

Variants: smoke, paper, best, lora, tight, full, skip.
"""

from relief_jax.config import presets


def skip(c):
  """Skips absent branches: FedAvg without its largest waste."""
  c.fill = 'skip'


get_config = presets.getter('fedavg', skip=skip)
