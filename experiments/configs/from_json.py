"""The config that a run or a comparison wrote into its folder.

relief run runs/relief/config.json --workdir=runs/b

is short for --config=experiments/configs/from_json.py:PATH_OF_THE_JSON.
"""

import pathlib

from relief_jax.campaign import comparison
from relief_jax.storage import records


def get_config(arg):
  """Reads the config in the file named `arg`.

  Raises:
    InputError: no such file, no JSON in it, or a key that no config has.
  """
  values = records.read_json(pathlib.Path(arg))
  if 'methods' in values:
    return comparison.from_dict(values)
  return records.config_from_dict(values)
