"""Every block averaged over its owners, without budgets.

relief run cohort_mean:smoke --workdir=runs/cohort_mean

Variants: smoke, paper, best, lora, tight, full.
"""

from relief_jax.config import presets

get_config = presets.getter('cohort_mean')
