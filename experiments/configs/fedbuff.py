"""FedBuff: a server step for every K updates that arrive.

relief run fedbuff:smoke --workdir=runs/fedbuff

Variants: smoke, paper, best, lora, tight, full. `--config.fedbuff.buffer=K`;
`--config.clients_per_round=C` is how many devices work at a time.
"""

from relief_jax.config import presets

get_config = presets.getter('fedbuff')
