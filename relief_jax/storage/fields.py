"""Names, units and meanings of all that a run writes, in one table.

Every run holds it as `columns.json`; docs/metrics.md shows it. Scores are
shares from 0 to 1 in files, percent in texts and figures.
"""

from typing import Any, NamedTuple

FILE = 'columns.json'


class Field(NamedTuple):
  """Describes a field of a record.

  Attributes:
    unit: of the number; '' where it is none.
    meaning: for a reader of the file.
    by: what the keys are where the field is an object, '' where it is none.
  """

  unit: str
  meaning: str
  by: str = ''


_SHARE = 'share 0..1'
_OWN = 'each with the model and the sensors that it has'
METRICS = {
  'round': Field('rounds', 'rounds done at this evaluation'),
  'sim_seconds': Field('simulated s', 'time of all rounds so far'),
  'joules': Field('simulated J', 'energy of all devices so far'),
  'up_bytes': Field('bytes', 'sent by all devices so far'),
  'down_bytes': Field('bytes', 'received by all devices so far'),
  'f1': Field(
    _SHARE, f'macro-F1 of held-out persons, mean over devices, {_OWN}'
  ),
  'accuracy': Field(_SHARE, 'as f1, share of windows that are right'),
  'test_loss': Field('nats', 'as f1, mean cross-entropy of a window'),
  'f1_by_tier': Field(_SHARE, 'f1 of the devices of a tier', 'tier'),
  'f1_by_subset': Field(
    _SHARE, 'f1 of the devices that own these sensors', 'sensors'
  ),
  'f1_by_person': Field(_SHARE, 'f1 on one held-out person', 'person'),
  'f1_by_class': Field(
    _SHARE,
    'F1 of a class in confusion.json: the server’s model with every sensor on, '
    'personal ones on their own sensors, together',
    'class',
  ),
  'f1_all': Field(_SHARE, 'macro-F1 of the server’s model, every sensor on'),
  'f1_rare_only': Field(_SHARE, 'as f1_all, the rare sensor alone on'),
  'f1_without_rare': Field(_SHARE, 'as f1_all, the rare sensor off'),
  'f1_without': Field(_SHARE, 'as f1_all, this sensor off', 'sensor'),
  'f1_by_exit': Field(_SHARE, 'f1 of each early exit alone, from the first'),
  'f1_global': Field(
    _SHARE, 'as f1 with the server’s whole model; not for personal methods'
  ),
  'f1_global_by_tier': Field(_SHARE, 'f1_global of a tier', 'tier'),
  'f1_global_by_person': Field(_SHARE, 'f1_global on one person', 'person'),
  'f1_global_by_subset': Field(
    _SHARE, 'macro-F1 of the server’s model with these sensors on', 'sensors'
  ),
  'f1_validation': Field(
    _SHARE, 'as f1, on the persons to choose values by; never a result'
  ),
  'f1_own': Field(_SHARE, 'as f1, on each device’s own later windows'),
  'f1_own_by_tier': Field(_SHARE, 'f1_own of a tier', 'tier'),
  'f1_own_rare_owners': Field(
    _SHARE, 'macro-F1 on the own windows of the rare sensor’s owners, pooled'
  ),
  'divergence': Field(
    'as the method measures it',
    'how much the updates of a group of parameters differ',
    'group',
  ),
  'trained_share': Field(
    _SHARE, 'participants that trained a group since the last line', 'group'
  ),
  'loss': Field(
    'nats', 'training loss since the last line, mean over rounds and devices'
  ),
  'found_weight': Field(
    'factor', 'least, mean, largest weight that devices computed themselves'
  ),
  'memory_mb': Field(
    'MB', 'the most that training took on a device since the last line'
  ),
  'dropped': Field('updates', 'not finite, left out since the last line'),
  'prequential': Field(
    _SHARE, 'arrived windows that were classified rightly before training'
  ),
  'late': Field('updates', 'that the server did not wait for'),
  'wall_seconds': Field('s', 'of this machine, so far'),
}
_SCORES = 'the scores of metrics.jsonl'
SUMMARY = {
  'schema': Field('', 'version of these files'),
  'status': Field('', 'complete, stopped, interrupted or diverged'),
  'reason': Field('', 'why it diverged'),
  'stop_reason': Field('', 'why a callback stopped it'),
  'round': Field('rounds', 'rounds done'),
  'rounds_done': Field('rounds', 'rounds done'),
  'rounds': Field('rounds', 'of the whole run'),
  'dataset': Field('', 'title of the data, with what limits them'),
  'method': Field('', 'as in config.json'),
  'backbone': Field('', 'as in config.json'),
  'clients': Field('devices', 'in all'),
  'seed': Field('', 'as in config.json'),
  'last': Field(_SHARE, f'{_SCORES}, at the last evaluation', 'score'),
  'best': Field(_SHARE, f'{_SCORES}, the largest of each', 'score'),
  'target_f1': Field(_SHARE, 'f1 that is to be reached'),
  'rounds_to_target': Field('rounds', 'first evaluation at target_f1 or above'),
  'sim_seconds_to_target': Field('simulated s', 'likewise'),
  'joules_to_target': Field('simulated J', 'likewise'),
  'sim_seconds_per_round': Field('simulated s', 'mean over the rounds'),
  'sim_seconds_total': Field('simulated s', 'of all rounds'),
  'joules_total': Field('simulated J', 'of all devices and rounds'),
  'up_bytes_total': Field('bytes', 'sent by all devices'),
  'down_bytes_total': Field('bytes', 'received by all devices'),
  'dropped_total': Field('updates', 'not finite, left out'),
  'wall_seconds': Field('s', 'of this machine', 'stage'),
  'rounds_per_second': Field('1/s', 'of this machine, without compilation'),
  'clients_per_second': Field('1/s', 'devices simulated, likewise'),
  'compiles': Field('programs', 'compiled in this run'),
  'compile_seconds': Field('s', 'of this machine', 'stage'),
  'program_bytes': Field('bytes', 'that the compiled program reserves'),
  'memory_estimate': Field(
    'bytes', 'before the program ran, of the program, and what there is', 'part'
  ),
  'peak_memory_bytes': Field('bytes', 'the most that was in use'),
  'layout': Field('', 'how the devices were laid out on the machine'),
  'layout_choice': Field('s', 'the layout, why, and times of others', 'part'),
  'processes': Field('processes', 'that ran it'),
  'device_kind': Field('', 'of the machine'),
  'device_count': Field('devices', 'of the machine'),
  'cpu_count': Field('cores', 'of the machine'),
  'versions': Field('', 'of Python and packages', 'package'),
  'git_revision': Field('', 'of relief_jax; + where files had changed'),
  'warnings': Field('', 'for a reader of the results'),
  'recovery': Field(
    'share 0..1, rounds',
    'accuracy on arrivals before an outage and its lowest in it; rounds until '
    'it was back after the failure and after the return',
    'part',
  ),
  'diverged_round': Field('rounds', 'at which a number was not finite'),
  'diverged_group': Field('', 'of parameters that was not finite'),
  'fleet': Field(
    '', 'ids, tiers and sensors of the devices in devices.jsonl', 'part'
  ),
  'world.dataset': Field('', 'as above'),
  'world.classes': Field('', 'names, in the order of confusion.json'),
  'world.subjects': Field('', 'persons behind the windows', 'use'),
  'world.windows': Field('windows', 'to train and to test on', 'use'),
  'world.clients': Field('devices', 'in all'),
  'world.clients_per_round': Field('devices', 'that take part in a round'),
  'world.samples_per_client': Field('windows', 'least and most'),
  'world.cohorts': Field('devices', 'that own a sensor', 'sensor'),
  'world.smallest_cohort': Field('devices', 'the fewest owners', 'part'),
  'world.tiers': Field('devices', 'of a tier', 'tier'),
  'world.speed_ratio': Field('factor', 'fastest over slowest device'),
  'world.deadline': Field(
    'times T_th', 'of the first and the last round (docs/budgets.md)'
  ),
  'world.training_mb': Field(
    'MB',
    'that training all of its blocks takes, of a fleet with memory',
    'tier',
  ),
  'world.parameters': Field('numbers', 'of the model'),
  'world.groups': Field('', 'of parameters, in order'),
  'world.layout': Field('', 'as above'),
  'world.memory_bytes': Field('bytes', 'of data and state', 'part'),
}
DEVICES = {
  'round': Field('rounds', 'rounds done at this evaluation'),
  'rounds': Field(
    'rounds', 'that each device took part in since the last line'
  ),
  'trained': Field(
    'rounds', 'in which each device trained a group since then', 'group'
  ),
  'dropped': Field('rounds', 'in which each device’s update was left out'),
  'last': Field(
    'simulated s', 'download, compute, upload of the last round', 'part'
  ),
  'f1': Field(_SHARE, 'of each device, as f1 in metrics.jsonl'),
  'f1_own': Field(_SHARE, 'of each device, as f1_own in metrics.jsonl'),
}
COSINES = {
  'round': Field('rounds', 'of these updates'),
  'client': Field('', 'ids of the devices'),
  'cosines': Field(
    '-1..1', 'of the updates of every two devices; null: not moved', 'group'
  ),
}
CONFUSION = {
  'round': Field('rounds', 'rounds done at the last evaluation'),
  'classes': Field('', 'names, in the order of rows and columns'),
  'counts': Field('windows', 'a row per true class, a column per answer'),
}
FILES = {
  'metrics.jsonl': METRICS,
  'summary.json': SUMMARY,
  'devices.jsonl': DEVICES,
  'cosines.jsonl': COSINES,
  'confusion.json': CONFUSION,
}


def table() -> dict[str, Any]:
  """Gives the content of `columns.json`: file -> field -> unit, meaning."""
  return {
    file: {
      name: {k: v for k, v in field._asdict().items() if v}
      for name, field in fields.items()
    }
    for file, fields in FILES.items()
  }


def unknown(file: str, record: dict[str, Any]) -> list[str]:
  """Lists the fields of a record that the table does not describe.

  Args:
    file: of `FILES`.
    record: of it.

  >>> unknown('metrics.jsonl', {'round': 1, 'f1_by_tier': {'a': 1}, 'new': 2})
  ['new']
  """
  known = FILES[file]

  def names(values, at):
    for key, value in values.items():
      name = at + key
      parts = any(other.startswith(f'{name}.') for other in known)
      if parts and isinstance(value, dict):
        yield from names(value, f'{name}.')
      elif name not in known or isinstance(value, dict) > bool(known[name].by):
        yield name

  return list(names(record, ''))


def markdown() -> str:
  """Formats the table for docs/metrics.md."""
  parts = []
  for file, fields in FILES.items():
    rows = [
      f'| `{name}`{f", by {field.by}" if field.by else ""} | {field.unit} '
      f'| {field.meaning} |'
      for name, field in fields.items()
    ]
    head = f'`{file}`\n\n| field | unit | meaning |\n|---|---|---|\n'
    parts.append(head + '\n'.join(rows))
  return '\n\n'.join(parts) + '\n'
