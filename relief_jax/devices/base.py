"""Defines the record of a device profile, and the two rules behind figures.

*Sustained training rate* **ours**: peak single-precision rate from the vendor's
figures times an efficiency. Efficiencies are the least certain numbers of the
cost model: 0.20 for a CPU, 0.10 for a GPU of up to 512 cores, 0.05 for one of
2048, since a batch of 32 short windows does not fill a wide GPU. Reduced
precision and tensor cores are left out. Measure your own device and replace
the profile where absolute seconds matter.

*Links* **ours**: a quarter of the radio's link rate, both ways alike, which is
what TCP keeps on a shared access point. Devices do not slow each other down.

*Memory* for training is unbounded unless a fleet says otherwise (`memory_mb`):
no data sheet tells how much of it a system leaves to a program.

*Sources* stand beside the figures, in NAME.json (devices/cited.py). Read in a
copy of the cited text when the table was made: the power of the Raspberry Pi 4,
the radios CYW43455 and ATWILC3000A, the Xavier NX's cores, clock and power
modes, the TX2's clock, the AGX Orin's maximum power. The other vendor figures
are quoted from the named documents without a second look.
"""

import math
from typing import NamedTuple


class Device(NamedTuple):
  """Holds the figures of one kind of device.

  Attributes:
    peak: FLOP/s, single precision, all cores.
    efficiency: share of `peak` that training keeps up, **ours**.
    active: watts while training.
    sending: watts while sending.
    receiving: watts while receiving.
    idle: watts while waiting.
    uplink: bit/s towards the server.
    downlink: bit/s from the server.
    memory: bytes for training.

  >>> mine = Device(1e9, 0.5, 2.0, 1.0, 1.0, 0.5, 1e7, 1e7)
  >>> mine.speed
  500000000.0
  """

  peak: float
  efficiency: float
  active: float
  sending: float
  receiving: float
  idle: float
  uplink: float
  downlink: float
  memory: float = math.inf

  @property
  def speed(self) -> float:
    """Sustained FLOP/s of training."""
    return self.peak * self.efficiency

  @property
  def watts(self) -> tuple[float, float, float, float]:
    """Power in the order of `Fleet.watts`: active, tx, rx, idle."""
    return self.active, self.sending, self.receiving, self.idle
