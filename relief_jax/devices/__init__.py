"""Holds device profiles by name; every figure's source is in its file.

To add one, write `devices/NAME.py` and one line here; for one run it is enough
to set `DEVICES['mine'] = Device(...)`.
"""

from relief_jax.devices.base import Device
from relief_jax.devices.cortex_m7 import CORTEX_M7
from relief_jax.devices.jetson_agx_orin import JETSON_AGX_ORIN
from relief_jax.devices.jetson_nano import JETSON_NANO
from relief_jax.devices.jetson_tx2 import JETSON_TX2
from relief_jax.devices.jetson_xavier_nx import JETSON_XAVIER_NX
from relief_jax.devices.raspberry_pi_4 import RASPBERRY_PI_4
from relief_jax.errors import unknown

DEVICES = {
  'cortex_m7': CORTEX_M7,
  'raspberry_pi_4': RASPBERRY_PI_4,
  'jetson_nano': JETSON_NANO,
  'jetson_tx2': JETSON_TX2,
  'jetson_xavier_nx': JETSON_XAVIER_NX,
  'jetson_agx_orin': JETSON_AGX_ORIN,
}


def device(name: str) -> Device:
  """Finds the profile of a name.

  Raises:
    InputError: no such profile.
  """
  if name not in DEVICES:
    raise unknown('device', name, DEVICES)
  return DEVICES[name]
