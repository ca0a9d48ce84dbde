"""FedAsync: every model that arrives is mixed into the server's.

relief run fedasync:smoke --workdir=runs/fedasync

Variants: smoke, paper, best, lora, tight, full, hinge, constant.
`--config.clients_per_round=C` is how many devices work at a time.
"""

from relief_jax.config import presets


def hinge(c):
  """Lets an update lose no weight up to a staleness, then much."""
  c.fedasync.staleness = 'hinge'


def constant(c):
  """Lets an update lose no weight with its age."""
  c.fedasync.staleness = 'constant'


get_config = presets.getter('fedasync', hinge=hinge, constant=constant)
