"""Federated systems: one file each, `(Task, Setting) -> Algorithm`."""

from relief_jax.algorithms import (
  centralized,
  cohort_mean,
  fedavg,
  fedpmt,
  fedprox,
  local_only,
  relief,
)

ALGORITHMS = {
  'centralized': centralized.centralized,
  'cohort_mean': cohort_mean.cohort_mean,
  'fedavg': fedavg.fedavg,
  'fedpmt': fedpmt.fedpmt,
  'fedprox': fedprox.fedprox,
  'local_only': local_only.local_only,
  'relief': relief.relief,
}

# What a method does with absent modalities where the config leaves it open.
DEFAULT_FILL = {'fedavg': 'input', 'fedprox': 'input'}

# Methods that choose what to train under `config.deadline`.
BUDGETED = ('fedpmt', 'relief')
