"""NVIDIA Jetson Nano (4 GB), 10 W mode, training on the GPU.

peak: NVIDIA Jetson Nano system-on-module data sheet: 128 Maxwell cores at
  921.6 MHz, two FLOPs a cycle (fused multiply-add): 236 GFLOP/s.
efficiency: 0.10, **ours** (devices/base.py).
active: 0.7 of the 10 W mode (NVIDIA, "Power Management for Jetson Nano and
  Jetson TX1 Devices"); the factor is **ours**.
idle: 2 W, **ours**, rounded from users' measurements.
sending, receiving: idle plus 1.5 W and 1.0 W for an M.2 radio, **ours**.
uplink, downlink: a quarter (**ours**) of 867 Mbit/s, the top rate of a
  two-stream 802.11ac card such as Intel's 8265 (product brief); the module
  itself has Ethernet only.
"""

from relief_jax.devices.base import Device

JETSON_NANO = Device(
  peak=128 * 921.6e6 * 2,
  efficiency=0.10,
  active=7.0,
  sending=3.5,
  receiving=3.0,
  idle=2.0,
  uplink=217e6,
  downlink=217e6,
)
