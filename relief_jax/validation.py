"""Refuses configs that no run can use, key by key, before any work starts."""

import math
import numbers

import ml_collections

from relief_jax.config import default, get
from relief_jax.errors import InputError

_CHOICES = {
  'backbone': ('cnn', 'lora'),
  'partition': ('contiguous', 'subject', 'dirichlet'),
  'weight': ('uniform', 'samples'),
  'server_optimizer': ('sgd', 'momentum', 'adam', 'yogi'),
  'over_budget': ('refuse', 'sit_out'),
  'nonfinite': ('drop', 'stop'),
  'mean': ('median', 'trimmed', 'mean'),
  'faults.kind': ('flip', 'noise', 'nan'),
  'fill': ('', 'input', 'skip'),
  'fill_value': ('mean', 'zero'),
  'relief.norm': ('per_param', 'raw', 'relative', 'cosine'),
  'relief.denominator': ('contributors', 'cohort'),
  'depthfl.exits': ('all', 'last'),
  'fedpmt.depth': ('budget', 'cycle'),
  'fedpmt.side': ('output', 'input'),
  'feddrop.rate': ('fit', 'sqrt'),
  'feddrop.denominator': ('contributors', 'all'),
  'heterofl.masked': ('zero', 'inf', 'off'),
  'fedrolex.masked': ('zero', 'inf', 'off'),
  'fiarse.flops': ('kept', 'dense'),
  'fiarse.threshold': ('model', 'layer'),
  'tfedavg.mode': ('released', 'twn'),
  'tfedavg.exempt': ('all', 'none', 'ends'),
  'online.missing.kind': ('off', 'each', 'one', 'fleet', 'bursts'),
  'online.presence.kind': ('off', 'each', 'diurnal', 'stays', 'trace'),
  'online.pace.late': ('lost', 'partial'),
  'model.groups': ('split', 'joint', 'layer'),
  'model.fusion': ('attention', 'concat'),
  'model.base': ('pretrained', 'random'),
  'data.modalities': ('sensor', 'place'),
  'uplink_codec.mode': ('released', 'twn'),
  'uplink_codec.memory': ('on', 'off', 'auto'),
  'downlink_codec.mode': ('released', 'twn'),
  'downlink_codec.memory': ('on', 'off', 'auto'),
  'data.split': ('folds', 'time', 'official', 'subjects'),
}

_MOST_COMPARED = 64  # devices whose updates are held at once

_AT_LEAST_ONE = (
  'rounds',
  'rounds_per_call',
  'eval_every',
  'min_windows',
  'batch',
  'buckets',
  'harmony.members',
  'data.width',
  'data.stride',
  'model.kernel',
  'model.stride',
  'model.hidden',
  'model.heads',
  'model.rank',
  'online.stream.arrive',
  'online.presence.period',
  'synthetic.subjects',
  'synthetic.modalities',
  'synthetic.channels',
)


# Tuples, of which ml_collections looks at no member: the least value, the least
# length, an example.
_NUMBERS = {
  'data.test_subjects': (-(2**31), 0, '(7,8)'),
  'model.filters': (1, 1, '(32,64)'),
}


def validate(config: ml_collections.ConfigDict) -> None:
  """Refuses values that no run can use, before any work starts.

  Raises:
    InputError: what was found, what was expected and the usual cure.
  """
  for key, choices in _CHOICES.items():
    found = get(config, key)
    if found not in choices:
      raise InputError(
        f'config.{key} is {found!r}',
        f'one of {", ".join(map(repr, choices))}',
        f'set --config.{key}={choices[-1]}',
      )
  for key in _AT_LEAST_ONE:
    found = get(config, key)
    if found < 1:
      raise InputError(
        f'config.{key} is {found}', 'a number of at least 1', f'raise {key}'
      )
  if config.clients < 1:
    raise InputError(
      f'config.clients is {config.clients}',
      'at least 1 device',
      'set --config.clients=48',
    )
  if config.clients_per_round > config.clients:
    raise InputError(
      f'config.clients_per_round is {config.clients_per_round}',
      f'at most the fleet of {config.clients} devices',
      'lower it, or 0 for everybody',
    )
  participants = config.clients_per_round or config.clients
  if config.cosines and participants > _MOST_COMPARED:
    raise InputError(
      f'config.cosines={config.cosines} with {participants} devices a round',
      f'at most {_MOST_COMPARED}, since all updates are compared in pairs',
      'set --config.clients=24, or --config.cosines=0',
    )
  if config.local_epochs <= 0 and config.local_steps <= 0:
    raise InputError(
      f'config.local_steps is {config.local_steps} and local_epochs is '
      f'{config.local_epochs}',
      'one of them at least 1',
      'set --config.local_steps=5',
    )
  if config.eval_every % config.rounds_per_call:
    raise InputError(
      f'config.eval_every={config.eval_every} with '
      f'rounds_per_call={config.rounds_per_call}',
      'a multiple, since an evaluation happens between two calls',
      f'set --config.rounds_per_call={config.eval_every}',
    )
  for key, (least, least_count, example) in _NUMBERS.items():
    found = get(config, key)
    if key == 'data.test_subjects' and config.dataset == 'npz':  # or names
      found = tuple(one for one in found if not isinstance(one, str))
    _validate_numbers(key, found, least, least_count, example)
  _validate_data(config.data)
  _validate_clients(config)
  _validate_shift(config.shift)
  if not 0 <= config.fedel.beta <= 1:
    raise InputError(
      f'config.fedel.beta is {config.fedel.beta}',
      "a share from 0 (everybody's importance) to 1 (the device's own)",
      'set --config.fedel.beta=0.6',
    )
  if not 0 <= config.modality_dropout < 1:
    raise InputError(
      f'config.modality_dropout is {config.modality_dropout}',
      'a probability of at least 0 and below 1',
      'set --config.modality_dropout=0.3',
    )


def _validate_numbers(
  key: str, found: tuple, least: int, least_count: int, example: str
) -> None:
  """Refuses tuples that do not hold whole numbers alone."""
  if len(found) >= least_count and all(
    isinstance(one, numbers.Integral)
    and not isinstance(one, bool)
    and least <= int(one) < 2**31
    for one in found
  ):
    return
  raise InputError(
    f'config.{key} is {str(found)[:60]}',
    f'{least_count} or more whole numbers, each at least {least}',
    f'set --config.{key}="{example}"',
  )


def _validate_data(data: ml_collections.ConfigDict) -> None:
  """Refuses data keys that no data set can use."""
  for key in ('rate', 'max_gap', 'folds', 'fold'):
    if not 0 <= data[key] < math.inf:
      raise InputError(
        f'config.data.{key} is {data[key]}',
        'a number of at least 0',
        f'set --config.data.{key}=0',
      )
  if data.split == 'folds' and data.folds and data.fold >= data.folds:
    raise InputError(
      f'config.data.fold is {data.fold} of {data.folds}',
      f'0 to {data.folds - 1}',
      'lower --config.data.fold, or raise --config.data.folds',
    )
  if not 0 < data.test_share < 1:
    raise InputError(
      f'config.data.test_share is {data.test_share}',
      'a share above 0 and below 1',
      'set --config.data.test_share=0.25',
    )


_ONLINE = {
  'shift.clip': (100, 'no bound'),
  'shift.share': (1, 'all, unequally'),
  'shift.period': (10**6, 'faults stay'),
  'shift.gap': (1, 'off'),
  'shift.gone': (1, 'off'),
  'online.stream.buffer': (10**6, 'all windows'),
  'online.stream.spread': (5, 'the same on all devices'),
  'online.stream.drift': (1, 'an even mix'),
  'online.stream.delay': (10**6, 'labels at once'),
  'online.missing.rate': (1, 'never'),
  'online.missing.spread': (0.99, 'the same for all'),
  'online.missing.struck': (1, 'one device'),
  'online.presence.rate': (1, 'never there'),
  'online.presence.spread': (0.99, 'the same for all'),
  'online.pace.slowdown': (5, 'off'),
  'online.pace.fading': (5, 'off'),
  'online.pace.loss': (0.99, 'off'),
  'online.pace.wait': (10**6, 'no end'),
}


def _validate_shift(shift: ml_collections.ConfigDict) -> None:
  """Refuses whose and when of faults that are all off."""
  when = ('share', 'period')
  faults = [name for name in shift if name not in when]
  if any(shift[name] for name in faults):
    return
  for name in when:
    if shift[name]:
      raise InputError(
        f'config.shift.{name} is {shift[name]} without a fault',
        f'one of {", ".join(faults)} above 0',
        'set --config.shift.noise=1',
      )


def _validate_clients(config: ml_collections.ConfigDict) -> None:
  """Refuses numbers out of range, of the dealing, the fleet and methods."""
  ranges = {
    'quantity_skew': (5, 'even'),
    'cosines': (10**6, 'none'),
    'reuse': (10**6, 'every window on one device'),
    'fleet_coupling': (1, 'independent'),
    **{f'shift.{name}': (10, 'off') for name in config.shift},
    **_ONLINE,
    'fedmfs_style.top': (8, 'what fits'),
    'harmony.alone': (1, 'no round'),
    'harmony.encoder_lr': (10, 'encoders stay as they are'),
    'tfedavg.lost': (1, 'never ternary'),
    'trim': (0.49, 'none'),
    'faults.share': (1, 'nobody'),
    'faults.scale': (1e6, 'nothing'),
    'hparams.clip_norm': (1e9, 'off'),
  }
  for key, (most, zero) in ranges.items():
    found = get(config, key)
    if not 0 <= found <= most:  # NaN too
      raise InputError(
        f'config.{key} is {found}',
        f'a number from 0 ({zero}) to {most}',
        f'set --config.{key}={get(default(), key)}',
      )
