"""NVIDIA Jetson Xavier NX, 15 W mode, training on the GPU.

peak: NVIDIA Jetson Xavier NX data sheet: 384 Volta cores at 1.1 GHz, two FLOPs
  a cycle (fused multiply-add), tensor cores left out: 845 GFLOP/s.
efficiency: 0.10, **ours** (devices/base.py).
active: 0.7 of the 15 W mode (same data sheet); the factor is **ours**.
idle: 4 W, **ours**.
sending, receiving: idle plus 1.5 W and 1.0 W for an M.2 radio, **ours**.
uplink, downlink: a quarter (**ours**) of 867 Mbit/s, the top rate of a
  two-stream 802.11ac card such as the developer kit's.
"""

from relief_jax.devices.base import Device

JETSON_XAVIER_NX = Device(
  peak=384 * 1.1e9 * 2,
  efficiency=0.10,
  active=10.5,
  sending=5.5,
  receiving=5.0,
  idle=4.0,
  uplink=217e6,
  downlink=217e6,
)
