"""Federated systems: one file each, `(Task, Setting) -> Algorithm`."""

from relief_jax.algorithms.centralized import centralized
from relief_jax.algorithms.cohort_mean import cohort_mean
from relief_jax.algorithms.fedavg import fedavg
from relief_jax.algorithms.fedprox import fedprox
from relief_jax.algorithms.local_only import local_only
from relief_jax.algorithms.relief import relief

ALGORITHMS = {
  'centralized': centralized,
  'cohort_mean': cohort_mean,
  'fedavg': fedavg,
  'fedprox': fedprox,
  'local_only': local_only,
  'relief': relief,
}

# What a method does with absent modalities where the config leaves it open.
DEFAULT_FILL = {'fedavg': 'input', 'fedprox': 'input'}

# Methods that choose what to train under `config.deadline`.
BUDGETED = ('relief',)
