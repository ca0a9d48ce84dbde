"""Tiers in the manner of FedAT: synchronous inside, each at its own pace.

relief run fedat_style:smoke --workdir=runs/fedat_style

Variants: smoke, paper, best, lora, tight, full. `--config.fedat_style.tiers=M`.
"""

from relief_jax.config import presets

get_config = presets.getter('fedat_style')
