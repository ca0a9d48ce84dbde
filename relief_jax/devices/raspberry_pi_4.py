"""Raspberry Pi 4 Model B, training on its four CPU cores.

peak: Raspberry Pi 4 Model B product brief: four Cortex-A72 at 1.5 GHz. Eight
  FLOPs a cycle and core: Arm, "Cortex-A72 Software Optimization Guide", one
  128-bit fused multiply-add a cycle.
efficiency: 0.20, **ours** (devices/base.py).
active, idle: Raspberry Pi blog / The MagPi, "Thermal testing Raspberry Pi 4"
  (G. Halfacree, 2019): about 6.4 W under load and 2.1 W idle with the latest
  firmware tested.
sending, receiving: idle plus 1.0 W and 0.5 W for the radio, **ours**.
uplink, downlink: a quarter (**ours**) of 433.3 Mbit/s, the top 802.11ac rate of
  its radio: Cypress CYW43455 data sheet 002-15051.
"""

from relief_jax.devices.base import Device

RASPBERRY_PI_4 = Device(
  peak=4 * 1.5e9 * 8,
  efficiency=0.20,
  active=6.4,
  sending=3.1,
  receiving=2.6,
  idle=2.1,
  uplink=108e6,
  downlink=108e6,
)
