"""Federated systems: one file each, `(Task, Setting) -> Algorithm`."""

from relief_jax.algorithms import (
  centralized,
  cohort_mean,
  fedavg,
  feddrop,
  fedpmt,
  fedprox,
  fedrolex,
  fiarse,
  flism,
  heterofl,
  local_only,
  relief,
)

ALGORITHMS = {
  'centralized': centralized.centralized,
  'cohort_mean': cohort_mean.cohort_mean,
  'fedavg': fedavg.fedavg,
  'feddrop': feddrop.feddrop,
  'fedpmt': fedpmt.fedpmt,
  'fedprox': fedprox.fedprox,
  'fedrolex': fedrolex.fedrolex,
  'fiarse': fiarse.fiarse,
  'flism': flism.flism,
  'heterofl': heterofl.heterofl,
  'local_only': local_only.local_only,
  'relief': relief.relief,
}

# What a method does with absent modalities where the config leaves it open.
DEFAULT_FILL = {
  'fedavg': 'input',
  'feddrop': 'input',
  'fedprox': 'input',
  'fedrolex': 'input',
  'fiarse': 'input',
  'flism': 'input',
  'heterofl': 'input',
}

# Methods that choose what to train under `config.deadline`.
BUDGETED = ('feddrop', 'fedpmt', 'fedrolex', 'fiarse', 'heterofl', 'relief')
