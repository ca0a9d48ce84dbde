"""The configuration of a run: every key, its default and its check."""

from relief_jax.config.assembly import complete as complete
from relief_jax.config.assembly import default as default
from relief_jax.config.assembly import get as get
from relief_jax.config.assembly import outside as outside
from relief_jax.config.assembly import prune as prune
from relief_jax.config.assembly import refuse_renamed as refuse_renamed
from relief_jax.config.assembly import rows as rows
from relief_jax.config.table import ROWS as ROWS
