"""NVIDIA Jetson TX2, 15 W mode, training on the GPU.

peak: NVIDIA Jetson TX2 series data sheet: 256 Pascal cores; 1.12 GHz in the
  15 W mode (Max-P Core-All in the board's nvpmodel table), two FLOPs a cycle
  (fused multiply-add): 573 GFLOP/s.
efficiency: 0.10, **ours** (devices/base.py).
active: 0.7 of the 15 W mode; the factor is **ours**.
idle: 3 W, **ours**.
sending, receiving: idle plus 1.5 W and 1.0 W for the radio, **ours**.
uplink, downlink: a quarter (**ours**) of 867 Mbit/s, the top 802.11ac rate of
  the module's own radio (same data sheet).
"""

from relief_jax.devices.base import Device

JETSON_TX2 = Device(
  peak=256 * 1.12e9 * 2,
  efficiency=0.10,
  active=10.5,
  sending=4.5,
  receiving=4.0,
  idle=3.0,
  uplink=217e6,
  downlink=217e6,
)
