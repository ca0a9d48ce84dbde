"""RELIEF where nobody waits: cohort means weighted by staleness.

relief run relief_async:smoke --workdir=runs/relief_async

Variants: smoke, paper, best, lora, tight, full.
`--config.relief_async.buffer=K` and all options of RELIEF;
`--config.clients_per_round=C` is how many devices work at a time.
"""

from relief_jax.config import presets

get_config = presets.getter('relief_async')
