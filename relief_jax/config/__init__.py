"""The configuration of a run: every key, its default and its check."""

from relief_jax.config.table import ROWS as ROWS
from relief_jax.config.table import complete as complete
from relief_jax.config.table import default as default
from relief_jax.config.table import get as get
from relief_jax.config.table import outside as outside
from relief_jax.config.table import prune as prune
from relief_jax.config.table import rows as rows
