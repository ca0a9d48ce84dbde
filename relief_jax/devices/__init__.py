"""Holds device profiles by name; every figure's source is in its file.

To add one, put NAME.json into this folder (devices/cited.py says what is in
it); for one run name such a file in a fleet, or set
`DEVICES['mine'] = Device(...)`.
"""

import pathlib

from relief_jax.devices import figures
from relief_jax.devices.base import Device
from relief_jax.errors import unknown


def _all() -> dict[str, Device]:
  """Reads the files of this folder, from slow to fast."""
  folder = pathlib.Path(__file__).parent
  found = {path.stem: figures.read(path) for path in folder.glob('*.json')}
  return dict(sorted(found.items(), key=lambda item: item[1].speed))


DEVICES = _all()


def device(name: str) -> Device:
  """Finds the profile of a name.

  Raises:
    InputError: no such profile.
  """
  if name not in DEVICES:
    raise unknown('device', name, DEVICES)
  return DEVICES[name]
