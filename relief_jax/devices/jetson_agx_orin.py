"""NVIDIA Jetson AGX Orin (64 GB), full power mode, training on the GPU.

peak: NVIDIA Jetson AGX Orin series data sheet: 2048 Ampere cores at 1.3 GHz,
  two FLOPs a cycle (fused multiply-add), tensor cores left out: 5.3 TFLOP/s.
efficiency: 0.05, **ours** (devices/base.py).
active: 0.7 of the module's 60 W maximum (same data sheet); the factor is
  **ours**.
idle: 10 W, **ours**, rounded from users' measurements of the developer kit.
sending, receiving: idle plus 1.5 W and 1.0 W for an M.2 radio, **ours**.
uplink, downlink: a quarter (**ours**) of 867 Mbit/s, the top rate of a
  two-stream 802.11ac card such as the developer kit's.
"""

from relief_jax.devices.base import Device

JETSON_AGX_ORIN = Device(
  peak=2048 * 1.3e9 * 2,
  efficiency=0.05,
  active=42.0,
  sending=11.5,
  receiving=11.0,
  idle=10.0,
  uplink=217e6,
  downlink=217e6,
)
