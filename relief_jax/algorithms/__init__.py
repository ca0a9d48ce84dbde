"""Federated systems: one file each, `(Task, Setting) -> Algorithm`."""

from relief_jax.algorithms import (
  centralized,
  cohort_mean,
  fedavg,
  feddrop,
  fedmfs_style,
  fedpmt,
  fedprox,
  fedrolex,
  fiarse,
  heterofl,
  local_only,
  relief,
  tfedavg,
)

ALGORITHMS = {
  'centralized': centralized.centralized,
  'cohort_mean': cohort_mean.cohort_mean,
  'fedavg': fedavg.fedavg,
  'feddrop': feddrop.feddrop,
  'fedmfs_style': fedmfs_style.fedmfs_style,
  'fedpmt': fedpmt.fedpmt,
  'fedprox': fedprox.fedprox,
  'fedrolex': fedrolex.fedrolex,
  'fiarse': fiarse.fiarse,
  'heterofl': heterofl.heterofl,
  'local_only': local_only.local_only,
  'relief': relief.relief,
  'tfedavg': tfedavg.tfedavg,
}

# What a method does with absent modalities where the config leaves it open.
DEFAULT_FILL = {
  'fedavg': 'input',
  'feddrop': 'input',
  'fedprox': 'input',
  'fedrolex': 'input',
  'fiarse': 'input',
  'heterofl': 'input',
  'tfedavg': 'input',
}

# Methods that choose what to train under `config.deadline`.
BUDGETED = (
  'feddrop',
  'fedmfs_style',
  'fedpmt',
  'fedrolex',
  'fiarse',
  'heterofl',
  'relief',
)
