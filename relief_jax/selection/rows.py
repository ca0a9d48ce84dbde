"""Declares the keys of `config.selection`, each read by one rule."""

from relief_jax.keys import MANY, Key, name, real, whole
from relief_jax.selection import NAMES, RANDOM

_LARGE = 1e9  # joules

ROWS: dict[str, Key] = {
  'rule': name(RANDOM, NAMES, 'who takes part (docs/selection.md)'),
  'exploration': real(
    0.9, 0, 1, 'oort_style: share of a round for devices never picked, at first'
  ),
  'exploration_decay': real(
    0.98, 0, 1, 'oort_style: factor of that share from round to round'
  ),
  'exploration_least': real(
    0.3, 0, 1, 'oort_style: below which that share does not fall'
  ),
  'pace': real(
    0.3, 0, 1, 'oort_style: preferred seconds of a round, a quantile of them'
  ),
  'penalty': real(
    2.0, 0, 100, 'oort_style: alpha of (preferred / own seconds)^alpha'
  ),
  'clip': real(0.9, 0, 1, 'oort_style: quantile at which utilities are cut'),
  'cutoff': real(
    0.05,
    0,
    1,
    'oort_style: of the score of the last device in the round, to be drawn',
  ),
  'most_picks': whole(
    0, 0, MANY, 'oort_style: picked more often only in need; 0: any', 'rounds'
  ),
  'joules': real(
    0.0, 0, _LARGE, 'fedjoule_style: of all devices in all rounds; 0: any', 'J'
  ),
  'battery': real(
    0.0, 0, _LARGE, 'fedjoule_style: of a device in all rounds; 0: any', 'J'
  ),
}
