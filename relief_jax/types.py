"""Defines the records of the world that modules share; of models: task/.

Shape letters, used everywhere: `N` clients in the population, `K` in the
round, `M` modalities, `G` blocks of parameters, `W` windows per client
(padded), `T` local steps, `B` batch, `R` rounds, `C` classes, `Q` gradient
paths. The client axis comes first, always. `P` means "shaped like the
parameters".
"""

from typing import Any, NamedTuple

import flax
import jax

Array = jax.Array
PyTree = Any


class Shift(NamedTuple):
  """Describes the faults of a device's sensors, against the data set's.

  Applied by clients/sensor_faults.py.

  Attributes:
    gain: [..., M] float32, factor; None: 1.
    bias: [..., M] float32, added, in z-scored units; None: 0.
    noise: [..., M] float32, deviation of white noise; None: 0.
    jitter: [..., M] float32, deviation of sampling times in samples; None: 0.
    key: [..., 2] uint32, of all that is drawn by window, None without.
    clip: [..., M] float32, largest absolute value; None: no bound.
    gap: [..., M] float32, share of a window that is lost at a stretch; None: 0.
    lost: [..., M] float32, share of the windows that are lost; None: 0.
    cycle: [..., M, 2] float32, rounds of a period and where in it a sensor
      begins, as its faults come and go; None: they stay.
  """

  gain: Array | None
  bias: Array | None
  noise: Array | None
  jitter: Array | None
  key: Array | None
  clip: Array | None = None
  gap: Array | None = None
  lost: Array | None = None
  cycle: Array | None = None


@flax.struct.dataclass
class Fleet:
  """Describes every client; small, replicated over devices.

  Attributes:
    id: [N] int32, name of the client; its random keys derive from it.
    owned: [N, M] bool, installed sensors.
    tier: [N] int32, index into the fleet's tier names (reports only).
    samples: [N] int32, real windows of data; 0 marks a padding client.
    speed: [N] float32, sustained FLOP/s of training.
    uplink: [N] float32, bit/s towards the server.
    downlink: [N] float32, bit/s from the server.
    watts: [N, 4] float32, power while computing, sending, receiving, idle.
    budget: [N] float32, FLOPs per sample that fit a deadline of 1:
      speed_n * T_th, per sample since the batch size cancels.
    shift: [N, M] of every field, None where all sensors agree.
    memory: [N] float32 bytes for training, None where nobody has a bound.
    conditions: of a round of an online world, beside these fields
      (online/conditions.py), None elsewhere. There `owned` marks the sensors
      that deliver, and the other fields too are the round's.
  """

  id: Array
  owned: Array
  tier: Array
  samples: Array
  speed: Array
  uplink: Array
  downlink: Array
  watts: Array
  budget: Array
  shift: Shift | None = None
  conditions: PyTree = None
  memory: Array | None = None


@flax.struct.dataclass
class Bank:
  """Holds all windows, once; clients point into it.

  Attributes:
    x: {modality: [windows, time, channels]} float32, z-scored, or of another
      shape [windows, ..., channels]; with cached frozen features {modality:
      [windows, features]}.
    fill: {modality: [channels]} float32, what a sensor that is not there
      delivers under `fill='input'` (with cached features: [features]).
    y: [windows] int32, class of every window.
    before: [windows] int32, the window of the same recording that its device
      has before it, itself for the first one; None where no model looks back.
  """

  x: dict[str, Array]
  fill: dict[str, Array]
  y: Array
  before: Array | None = None


@flax.struct.dataclass
class Population:
  """Holds the clients and their data.

  Attributes:
    bank: every training window, and padding that nobody points to.
    fleet: every client.
    rows: [N, W] int32, each client's windows in the bank; entries from
      `fleet.samples[n]` on are padding and are never drawn. On a mesh it is
      cut by clients, and padded with rows of zeros to a multiple of its size.
    frozen: parameters that never train, the same for all ({} if none).
    online: processes that change the world from round to round
      (`online.conditions.Online`), None in a static one.
  """

  bank: Bank
  fleet: Fleet
  rows: Array
  frozen: PyTree
  online: PyTree = None


@flax.struct.dataclass
class OwnWindows:
  """Holds later windows of the devices' own persons (world/own_windows.py).

  Attributes:
    bank: these windows.
    rows: [N, W] int32, each device's windows in the bank, padded.
    count: [N] int32, how many of them are real.
    order: [L] int32, places of the real ones in `rows` taken as a line,
      devices of like sensors one after another; -1 for padding.
    first: [] int32, the number of training windows: what a sensor does to a
      window is drawn from its number, and these come after them.
  """

  bank: Bank
  rows: Array
  count: Array
  order: Array
  first: Array


@flax.struct.dataclass
class HeldOut:
  """Holds the windows that models are tested on.

  Attributes:
    bank: windows of persons that are on no device, to test or to validate on.
    person: [windows] int32, place of each window's person in `World.persons`;
      -1 for padding.
    own: the devices' own later windows, None where none are held back.
  """

  bank: Bank
  person: Array
  own: OwnWindows | None = None
