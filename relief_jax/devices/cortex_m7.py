"""Cortex-M7 class node: STM32H743 at 480 MHz with an 802.11n companion.

peak: ST DS12110 (STM32H743xI): one Cortex-M7 core at 480 MHz with an FPU. Two
  FLOPs a cycle (one fused multiply-add): **ours**, from Arm's description of
  the FPv5 unit.
efficiency: 0.20, **ours** (devices/base.py).
active: about 150 mA at 3.3 V in run mode, rounded to 0.5 W, **ours** after the
  order of magnitude in ST DS12110, "Typical and maximum current consumption
  in Run mode".
sending, receiving: Microchip ATWILC3000A data sheet, "Current consumption in
  various device states": 802.11n MCS 7 takes 253 mA to send and 84 mA to
  receive at 3.3 V, i.e. 0.83 W and 0.28 W; plus the idle node, **ours**.
idle: 0.1 W, **ours** (sleep with RAM kept, radio in doze).
uplink, downlink: a quarter (**ours**) of 72.2 Mbit/s, the top rate of 802.11n
  with one stream in 20 MHz.
"""

from relief_jax.devices.base import Device

CORTEX_M7 = Device(
  peak=480e6 * 2,
  efficiency=0.20,
  active=0.5,
  sending=0.93,
  receiving=0.38,
  idle=0.1,
  uplink=18e6,
  downlink=18e6,
)
