"""FedProx: FedAvg with a proximal term (--config.hparams.prox).

relief run fedprox:smoke --workdir=runs/fedprox

Variants: smoke, paper, best, lora, tight, full.
"""

from relief_jax.config import presets

get_config = presets.getter('fedprox')
