"""Describes worlds that several of the shipped comparisons share.

A config is run by its path, from a checkout or from an installed package, so it
cannot import another one: what they share is here. **Ours.**
"""

from fractions import Fraction
from typing import Any

import ml_collections

from relief_jax.devices import device
from relief_jax.world.tiers import Tier, Tiers

# MHEALTH without what its file at hand holds nearly nothing of; rare modality
# -> `data.channels`, the rare one last.
ARM_GYRO = 'gyro=arm_gyro_*'
MHEALTH = {
  'mag': f'acc;{ARM_GYRO};mag',
  'gyro': f'acc;mag;{ARM_GYRO}',
}
DEVIATION = 3.0  # of the noise of sensors that measure badly


def halves(c: ml_collections.ConfigDict) -> None:
  """Takes MHEALTH on 8 devices, and tests every person once in two folds."""
  c.dataset, c.clients, c.rounds = 'mhealth', 8, 20
  c.data.width = c.data.stride = 100
  c.data.split, c.data.folds = 'folds', 2


def unreliable(missing: float, noisy: float) -> dict[str, Any]:
  """Gives the keys of a world of missing and noisy sensors.

  Args:
    missing: rate at which a sensor delivers nothing in a round.
    noisy: share of the sensors that measure badly.
  """
  keys: dict[str, Any] = {
    'sensor_faults': {'noise': DEVIATION if noisy else 0.0, 'share': noisy}
  }
  if missing:
    keys['online'] = {'missing': {'kind': 'each', 'rate': missing}}
  return keys


def unreliable_name(missing: float, noisy: float) -> str:
  """Names such a world, in percent, as `relief robustness` reads it.

  >>> unreliable_name(0.3, 0.2)
  'missing30_noisy20'
  """
  return f'missing{100 * missing:.0f}_noisy{100 * noisy:.0f}'


def bounded(*megabytes: float) -> Tiers:
  """Builds `four_tiers` with memory for training.

  Args:
    *megabytes: of each tier.
  """
  boards = (
    'raspberry_pi_4',
    'jetson_nano',
    'jetson_xavier_nx',
    'jetson_agx_orin',
  )
  named = zip(
    ('low', 'mid', 'high', 'full'), (40, 30, 20, 10), boards, strict=True
  )
  return Tiers(
    tuple(
      Tier(
        name,
        share,
        Fraction(number, 4),
        device(board)._replace(memory=size * 1e6),
      )
      for number, ((name, share, board), size) in enumerate(
        zip(named, megabytes, strict=True), 1
      )
    )
  )
