"""Refuses configs that no run can use, key by key, before any work starts."""

from typing import Any

import ml_collections

from relief_jax import algorithms, plugins, selection
from relief_jax.config import modules, registries
from relief_jax.config.assembly import get, outside, rows
from relief_jax.config.online_table import ONLINE
from relief_jax.errors import InputError
from relief_jax.keys import Key, flatten, shown, spelled
from relief_jax.optimizers import reading
from relief_jax.selection import rows as selection_rows

_MOST_COMPARED = 64  # devices whose updates are held at once
# Models that read neither model.lora nor model.weights.
_PLAIN = ('cnn', 'lora', 'image_cnn', 'char_mlp')


def validate(config: ml_collections.ConfigDict) -> None:
  """Refuses values that no run can use, before any work starts.

  What `config.modules` names is imported first, then what other keys name
  outside of this package: both may add keys.

  Raises:
    InputError: what was found, what was expected and the usual cure.
  """
  known = rows()
  check('modules', config.modules, known['modules'])
  modules.load(config.modules)
  values = flatten(config.to_dict())
  registries.meet(values)
  known, more = rows(), outside()
  for key, row in known.items():
    try:
      value = get(config, key)
    except (KeyError, TypeError):
      if key.partition('.')[0] in more:  # defaults, see `registries.settle`
        continue
      raise _misfit(f'config without {key}') from None
    check(key, value, row)
  for key in values:
    if key not in known:
      raise _misfit(f'config.{key}, a key without a row')
  _validate_rounds(config)
  reading.read(config)
  _validate_clients(config)
  _validate_selection(config)
  _validate_folds(config.data)
  _validate_sensor_faults(config.sensor_faults)
  _validate_pace(config.online.pace)
  _validate_privacy(config)
  _validate_broadcast(config)
  _validate_base(config.backbone, config.model)


def check(key: str, value: Any, row: Key) -> None:
  """Refuses a value that a row does not take.

  Args:
    key: dotted name.
    value: anything.
    row: of the key.

  Raises:
    InputError: with what the row takes.
  """
  # By its module: whichever of the two is imported first needs the other.
  known = registries.REGISTRIES
  found = known[row.choices] if isinstance(row.choices, str) else None
  if found and isinstance(value, str) and found.also(value):
    return
  if found and found.kind and plugins.is_reference(value):
    registries.admit(found.kind, value)
    return
  choices = tuple(found.names()) if found else ()
  if row.takes(value, choices):
    return
  expected, cure = row.expected(choices), spelled(row.default)
  if found and found.others:
    expected += f', {found.others}'
  if found and found.kind:
    cure += (
      ', or name what adds it in --config.modules, or say where it is: '
      'MODULE:ATTRIBUTE'
    )
  raise InputError(
    f'config.{key} is {shown(value)}',
    f'{expected} ({row.meaning})',
    f'set --config.{key}={cure}',
  )


def _misfit(found: str) -> InputError:
  return InputError(
    found,
    'the keys of relief_jax.config.default(), no more and no less',
    'start from default(); for a key of your own name the module that adds its '
    'row in config.modules',
  )


def _validate_rounds(config: ml_collections.ConfigDict) -> None:
  """Refuses rounds that do not go together."""
  if config.local_epochs == 0 and config.local_steps == 0:
    raise InputError(
      'config.local_steps is 0 and local_epochs is 0',
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


def _validate_clients(config: ml_collections.ConfigDict) -> None:
  """Refuses more participants than there are, or than can be compared."""
  if config.clients_per_round > config.clients:
    raise InputError(
      f'config.clients_per_round is {config.clients_per_round}',
      f'at most the fleet of {config.clients} devices',
      'lower it, or 0 for everybody',
    )
  participants = config.clients_per_round or config.clients
  if config.update_similarity and participants > _MOST_COMPARED:
    raise InputError(
      f'config.update_similarity={config.update_similarity} with '
      f'{participants} devices a round',
      f'at most {_MOST_COMPARED}, since all updates are compared in pairs',
      'set --config.clients=24, or --config.update_similarity=0',
    )


def _validate_selection(config: ml_collections.ConfigDict) -> None:
  """Refuses a rule that has nothing to choose, and keys that it never reads."""
  rule, keys = config.selection.rule, selection.READS
  for key, row in selection_rows.ROWS.items():
    if key == 'rule' or key in keys[rule].keys:
      continue
    if config.selection[key] != row.default:
      reads = next(name for name in keys if key in keys[name].keys)
      raise InputError(
        f'config.selection.{key}={config.selection[key]} with '
        f'config.selection.rule={rule}, which does not read it',
        f'its default, or the rule {reads}',
        f'set --config.selection.rule={reads}, or leave the key out',
      )
  if rule == selection.RANDOM:
    return
  found = f'config.selection.rule={rule}'
  facts = algorithms.facts(config.method)
  if not facts.rounds or facts.arrivals:
    raise InputError(
      f'{found} for {plugins.short(config.method)!r}',
      'a method with rounds of several devices: here '
      + (
        'a device starts as soon as another arrives'
        if facts.arrivals
        else 'nothing is trained on devices'
      ),
      'set --config.selection.rule=random',
    )
  if config.clients_per_round in (0, config.clients):
    raise InputError(
      f'{found} with config.clients_per_round={config.clients_per_round} of '
      f'{config.clients} devices',
      'fewer devices in a round than there are, else there is no choice',
      f'set --config.clients_per_round={max(config.clients // 5, 1)}, or '
      '--config.selection.rule=random',
    )
  if config.privacy.noise != 'off':
    raise InputError(
      f'{found} with config.privacy.noise={config.privacy.noise}',
      'random: epsilon counts on devices being drawn at random',
      'set --config.selection.rule=random',
    )


def _validate_folds(data: ml_collections.ConfigDict) -> None:
  """Refuses a fold that is not there."""
  if data.split == 'folds' and data.folds and data.fold >= data.folds:
    raise InputError(
      f'config.data.fold is {data.fold} of {data.folds}',
      f'0 to {data.folds - 1}',
      'lower --config.data.fold, or raise --config.data.folds',
    )


def _validate_sensor_faults(shift: ml_collections.ConfigDict) -> None:
  """Refuses a share or a period of faults that are all off."""
  when = ('share', 'period')
  faults = [name for name in shift if name not in when]
  if any(shift[name] for name in faults):
    return
  for name in when:
    if shift[name]:
      raise InputError(
        f'config.sensor_faults.{name} is {shift[name]} without a fault',
        f'one of {", ".join(faults)} above 0',
        'set --config.sensor_faults.noise=1',
      )


def _validate_pace(pace: ml_collections.ConfigDict) -> None:
  """Refuses the clock of a file that is not there."""
  if pace.path or pace.round_seconds == ONLINE['pace']['round_seconds'].default:
    return
  raise InputError(
    f'config.online.pace.round_seconds={pace.round_seconds} without '
    'config.online.pace.path',
    'a file of bandwidths, whose clock it is',
    'set --config.online.pace.path=FILE.csv, or leave it out',
  )


def _validate_privacy(config: ml_collections.ConfigDict) -> None:
  """Refuses noise that nobody adds, or whose epsilon nobody can tell."""
  noise, values = config.privacy.noise, config.hparams
  if noise == 'off':
    if values.noise_multiplier:
      raise InputError(
        f'config.hparams.noise_multiplier={values.noise_multiplier} with '
        'config.privacy.noise=off',
        'somebody who adds the noise, device or server',
        'set --config.privacy.noise=server',
      )
    return
  if not values.clip_norm:
    raise InputError(
      f'config.privacy.noise={noise} with config.hparams.clip_norm=0',
      'updates of a bounded norm',
      'set --config.hparams.clip_norm=1',
    )
  online = config.online
  for on, key, usual in (
    (online.stream.buffer, 'stream.buffer', 0),
    (online.missing.kind != 'off', 'missing.kind', 'off'),
    (online.missing.outage, 'missing.outage', "''"),
    (online.presence.kind != 'off', 'presence.kind', 'off'),
    (online.pace.wait, 'pace.wait', 0),
  ):
    if on:
      raise InputError(
        f'config.privacy.noise={noise} with config.online.{key}',
        'rounds whose devices follow from the draw alone, which epsilon counts',
        f'set --config.online.{key}={usual}',
      )


def _validate_broadcast(config: ml_collections.ConfigDict) -> None:
  """Refuses keys of the broadcast that would do nothing, or cannot be."""
  given, usual = config.broadcast, rows()
  if given.kind == 'off':
    for key in given:
      if given[key] != usual[f'broadcast.{key}'].default:
        raise InputError(
          f'config.broadcast.{key}={given[key]} with config.broadcast.kind=off',
          'a broadcast that may be lost, unicast or rateless',
          'set --config.broadcast.kind=rateless',
        )
    return
  for key, base, found in (
    ('budget_spread', 'budget', given.budget_spread and not given.budget),
    ('erasure_spread', 'erasure', given.erasure_spread and not given.erasure),
    ('protect', 'repair', given.protect == 'symbols' and not given.repair),
  ):
    if found:
      raise InputError(
        f'config.broadcast.{key}={given[key]} with config.broadcast.{base}=0',
        f'{base} above 0, which it is about',
        f'set --config.broadcast.{base}=0.5',
      )
  if 0 < given.effort <= 10:
    raise InputError(
      f'config.broadcast.effort={given.effort}',
      'more than 10 iterations, which decode nothing, or 0 for any number',
      'set --config.broadcast.effort=50',
    )
  if config.online.pace.loss:
    raise InputError(
      f'config.online.pace.loss={config.online.pace.loss} with '
      f'config.broadcast.kind={given.kind}',
      'one of them: both lose what is sent down',
      'set --config.online.pace.loss=0',
    )


def _validate_base(backbone: str, model: ml_collections.ConfigDict) -> None:
  """Refuses to keep a head that nobody trained, and keys of other models."""
  for key, value in (('lora', model.lora), ('weights', model.weights)):
    if value and backbone in _PLAIN:
      raise InputError(
        f'config.model.{key} with config.backbone={backbone}',
        'the transformer',
        f'set --config.backbone=transformer, or leave config.model.{key} empty',
      )
  if model.base == 'random' and model.base_head:
    raise InputError(
      'config.model.base_head with config.model.base=random',
      'a base whose head was trained',
      'set --config.model.base=pretrained',
    )
