"""Chooses the channels of each modality: `config.data.channels`. **Ours.**

    acc;gyro=arm_gyro_*;mag

chooses, in this order, the data set's own `acc`, a `gyro` of the channels whose
names fit the pattern, and its own `mag`. The order counts: fleets give the
first modalities to everybody and the last ones to few (`world/tiers.py`), so
the last one becomes the rare one.
"""

import fnmatch
from collections.abc import Mapping, Sequence

from relief_jax.errors import InputError, unknown


def choose(
  asked: str, names: Sequence[str], modalities: Mapping[str, Sequence[int]]
) -> dict[str, list[int]]:
  """Chooses the channels of every modality.

  >>> own = {'acc': [0, 1], 'gyro': [2, 3]}
  >>> choose('gyro;acc=x,3', ('x', 'y', 'arm_1', 'arm_2'), own)
  {'gyro': [2, 3], 'acc': [0, 3]}
  >>> choose('gyro=arm_*', ('x', 'y', 'arm_1', 'arm_2'), own)
  {'gyro': [2, 3]}

  Args:
    asked: modalities joined by semicolons: a name of the data set's own, or
      `name=channel,channel` with names, numbers from 0, or patterns of names
      with `*`; '' for `modalities` as they are.
    names: of all channels.
    modalities: the data set's own, {name: numbers of its channels}.

  Returns:
    {modality: numbers of its channels}, in the order asked for.

  Raises:
    InputError: a modality or channel that is not there, or one named twice.
  """
  if not asked:
    return {name: list(numbers) for name, numbers in modalities.items()}
  found: dict[str, list[int]] = {}
  for part in asked.split(';'):
    name, given, members = (text.strip() for text in part.partition('='))
    if not given and name not in modalities:
      raise unknown('modality in config.data.channels', name, modalities)
    numbers = (
      [n for m in members.split(',') for n in _numbers(asked, m, names)]
      if given
      else list(modalities[name])
    )
    if not name or name in found or len(set(numbers)) < len(numbers):
      raise InputError(
        f'config.data.channels={asked!r} with {part.strip()!r}',
        'every modality once, with a name, and in it every channel once',
        "write it like 'acc=ax,ay,az;ecg=3'",
      )
    found[name] = numbers
  return found


def _numbers(asked: str, member: str, names: Sequence[str]) -> list[int]:
  """Finds the channels that a name, a number or a pattern stands for."""
  member = member.strip()
  if member in names:
    return [list(names).index(member)]
  if member.isdecimal() and int(member) < len(names):
    return [int(member)]
  fitting = [
    i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, member)
  ]
  if not fitting:
    raise InputError(
      f'config.data.channels={asked!r} with the channel {member!r}',
      f'channels {", ".join(names)}, or numbers up to {len(names) - 1}',
      "write it like 'acc=ax,ay,az;ecg=3'",
    )
  return fitting
