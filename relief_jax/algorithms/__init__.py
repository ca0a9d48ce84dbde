"""Federated systems: one file each, `(Task, Setting) -> Algorithm`."""

from relief_jax.algorithms import (
  centralized,
  cohort_mean,
  depthfl,
  elastic_fl,
  fedavg,
  feddrop,
  fedel,
  fedmfs_style,
  fedpmt,
  fedprox,
  fedrolex,
  fiarse,
  flism,
  harmony,
  heterofl,
  local_only,
  pmm,
  qqr_style,
  relief,
  tfedavg,
)

ALGORITHMS = {
  'centralized': centralized.centralized,
  'cohort_mean': cohort_mean.cohort_mean,
  'depthfl': depthfl.depthfl,
  'elastic_fl': elastic_fl.elastic_fl,
  'fedavg': fedavg.fedavg,
  'feddrop': feddrop.feddrop,
  'fedel': fedel.fedel,
  'fedmfs_style': fedmfs_style.fedmfs_style,
  'fedpmt': fedpmt.fedpmt,
  'fedprox': fedprox.fedprox,
  'fedrolex': fedrolex.fedrolex,
  'fiarse': fiarse.fiarse,
  'flism': flism.flism,
  'harmony': harmony.harmony,
  'heterofl': heterofl.heterofl,
  'local_only': local_only.local_only,
  'pmm': pmm.pmm,
  'qqr_style': qqr_style.qqr_style,
  'relief': relief.relief,
  'tfedavg': tfedavg.tfedavg,
}

# What a method does with absent modalities where the config leaves it open.
DEFAULT_FILL = {
  'depthfl': 'input',
  'fedavg': 'input',
  'feddrop': 'input',
  'fedprox': 'input',
  'fedrolex': 'input',
  'fiarse': 'input',
  'flism': 'input',
  'heterofl': 'input',
  'tfedavg': 'input',
}

# Methods whose model has an exit behind every layer (`types.Exits`).
EXITS = ('depthfl', 'fedel')

# Methods that choose what to train under `config.deadline`.
BUDGETED = (
  'depthfl',
  'elastic_fl',
  'feddrop',
  'fedel',
  'fedmfs_style',
  'fedpmt',
  'fedrolex',
  'fiarse',
  'heterofl',
  'relief',
)

# Methods that have no rounds on devices: an online world means nothing to them.
STATIC = ('centralized',)
