"""Fig. 2 of the paper: how alike the updates of devices are, block by block.

relief compare cosines --workdir=runs/cosines [--data_dir=DIR]
relief report runs/cosines

Five rounds of the 24 devices of DSADS, FedAvg with the mean in place of
absent sensors, FedAvg with physical zeros there (which the encoders' answer
to is larger), and RELIEF, where devices train nothing of a sensor that they
lack. The figures are the report's `cosines_round1` to `cosines_round5`.
Variants: those of `presets`.
"""

from relief_jax.campaign import comparison
from relief_jax.config import presets

METHODS = {
  'fedavg': {'method': 'fedavg'},
  'fedavg_zeros': {'method': 'fedavg', 'fill_value': 'zero'},
  'relief': comparison.MID,
}


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.rounds = c.update_similarity = 5
  presets.apply(c, arg)
  return comparison.build(c, METHODS, (0,))
