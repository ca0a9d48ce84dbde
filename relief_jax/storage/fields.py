"""Names, units and meanings of all that a run writes, in one table.

Every run holds it as `columns.json`; docs/metrics.md shows it. Shares are from
0 to 1 in files, percent in texts and figures.
"""

from typing import Any, NamedTuple

from relief_jax.scoring import metrics
from relief_jax.scoring.metrics import (
  ACCURACY,
  EVERY,
  F1,
  OF,
  PERPLEXITY,
  RMSE,
  TOKEN_ACCURACY,
  Metric,
)

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


_SHARE = ACCURACY.unit
_OWN = 'each with the model and the sensors that it has'


def _family(metric: Metric) -> dict[str, Field]:
  """Describes the fields of the main metric of a kind of targets."""
  name, unit, title = metric.name, metric.unit, metric.title
  found = {
    '': Field(unit, f'{title} of held-out persons, mean over devices, {_OWN}'),
    '_by_tier': Field(unit, f'{name} of the devices of a tier', 'tier'),
    '_by_subset': Field(
      unit, f'{name} of the devices that own these sensors', 'sensors'
    ),
    '_by_person': Field(unit, f'{name} on one held-out person', 'person'),
    '_all': Field(unit, f'{title} of the server’s model, every sensor on'),
    '_rare_only': Field(unit, f'as {name}_all, the rare sensor alone on'),
    '_without_rare': Field(unit, f'as {name}_all, the rare sensor off'),
    '_without': Field(unit, f'as {name}_all, this sensor off', 'sensor'),
    '_by_exit': Field(unit, f'{name} of each early exit alone, from the first'),
    '_global': Field(
      unit,
      f'as {name} with the server’s whole model; not for personal methods',
    ),
    '_global_by_tier': Field(unit, f'{name}_global of a tier', 'tier'),
    '_global_by_person': Field(unit, f'{name}_global on one person', 'person'),
    '_global_by_subset': Field(
      unit, f'{title} of the server’s model with these sensors on', 'sensors'
    ),
    '_validation': Field(
      unit, f'as {name}, on the persons to choose values by; never a result'
    ),
    '_own': Field(unit, f'as {name}, on each device’s own later windows'),
    '_own_by_tier': Field(unit, f'{name}_own of a tier', 'tier'),
    '_own_rare_owners': Field(
      unit, f'{title} on the own windows of the rare sensor’s owners, pooled'
    ),
  }
  return {name + end: field for end, field in found.items()}


# Tests of the server's model that main metrics alone have.
_PROBES = (
  '_all',
  '_rare_only',
  '_without_rare',
  '_without',
  '_by_exit',
  '_global_by_subset',
)


def _beside(metric: Metric, meaning: str) -> dict[str, Field]:
  """Describes the fields of the metric beside a main one."""
  name = metric.name
  probes = {name + end for end in _PROBES}
  found = {k: v for k, v in _family(metric).items() if k not in probes}
  return found | {name: Field(metric.unit, meaning)}


METRICS = {
  'round': Field('rounds', 'rounds done at this evaluation'),
  'sim_seconds': Field('simulated s', 'time of all rounds so far'),
  'joules': Field('simulated J', 'energy of all devices so far'),
  'up_bytes': Field('bytes', 'sent by all devices so far'),
  'down_bytes': Field('bytes', 'received by all devices so far'),
  **_family(F1),
  **_beside(ACCURACY, 'as f1, share of windows that are right'),
  'test_loss': Field(
    'nats', 'as the score, mean cross-entropy of a window, or of a token'
  ),
  'f1_by_class': Field(
    _SHARE,
    'F1 of a class in confusion.json: the server’s model with every sensor on, '
    'personal ones on their own sensors, together',
    'class',
  ),
  **_family(PERPLEXITY),
  **_beside(TOKEN_ACCURACY, 'as perplexity, share of tokens that are right'),
  **_family(RMSE),
  'divergence': Field(
    'as the method measures it',
    'how much the updates of a group of parameters differ',
    'group',
  ),
  'trained_share': Field(
    _SHARE, 'participants that trained a group since the last line', 'group'
  ),
  'loss': Field(
    'nats or squares',
    'training loss since the last line, mean over rounds and devices',
  ),
  'found_weight': Field(
    'factor', 'least, mean, largest weight that devices computed themselves'
  ),
  'memory_mb': Field(
    'MB', 'the most that training took on a device since the last line'
  ),
  'merge_error': Field(
    'share',
    "the norm of (product that went on - mean of the devices' products) over "
    'the norm of the latter, mean over rounds; of adapters, with '
    '`merge_error=True`',
  ),
  'merge_dense': Field(
    _SHARE,
    'of the layers whose last merge goes down as a dense matrix, since that is '
    'less than all factors',
  ),
  'server_joules': Field(
    'J',
    'energy of a server that trains a part of the model, since the last line',
  ),
  'airtime': Field(
    'simulated s',
    'that the server sent the model, where it may be lost, since the last line',
  ),
  'stale_share': Field(
    _SHARE,
    'of the devices that were sent a group and did not decode it, since then',
    'group',
  ),
  'staleness': Field(
    'server steps',
    'from the start of a device to its arrival, where the server acts on '
    'arrivals: mean over the updates since the last line',
  ),
  'staleness_max': Field('server steps', 'likewise, the largest'),
  'stale': Field('updates', 'older than `max_staleness`, lost since then'),
  'dropped': Field('updates', 'not finite, left out since the last line'),
  'epsilon': Field(
    'nats',
    'of the model so far, of the device that noise hides least: all its '
    'windows replaced (docs/private.md)',
  ),
  'epsilon_local': Field(
    'nats', 'likewise, of the noisy updates of a single device'
  ),
  'delta': Field('probability', 'that goes with the epsilons'),
  'picked_share': Field(
    _SHARE,
    'devices that took part in a round so far, where not all do in every one',
  ),
  'picks_fairness': Field(
    '1/N..1',
    'Jain’s index of the rounds that each device took part in so far; 1: all '
    'equally often',
  ),
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
  'last': Field('as there', f'{_SCORES}, at the last evaluation', 'score'),
  'best': Field('as there', f'{_SCORES}, the best of each', 'score'),
  'target_f1': Field(_SHARE, 'f1 that is to be reached'),
  'target': Field('as the score', 'perplexity or RMSE that is to be reached'),
  'rounds_to_target': Field(
    'rounds', 'first evaluation at the target or better'
  ),
  'sim_seconds_to_target': Field('simulated s', 'likewise'),
  'joules_to_target': Field('simulated J', 'likewise'),
  'sim_seconds_per_round': Field('simulated s', 'mean over the rounds'),
  'sim_seconds_total': Field('simulated s', 'of all rounds'),
  'joules_total': Field('simulated J', 'of all devices and rounds'),
  'up_bytes_total': Field('bytes', 'sent by all devices'),
  'down_bytes_total': Field('bytes', 'received by all devices'),
  'dropped_total': Field('updates', 'not finite, left out'),
  'epsilon': Field('nats', 'as in metrics.jsonl, of all rounds'),
  'epsilon_local': Field('nats', 'likewise'),
  'delta': Field('probability', 'that goes with them'),
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
  'world.classes': Field('', 'names of classes, tokens or numbers, in order'),
  'world.subjects': Field('', 'persons behind the windows', 'use'),
  'world.windows': Field('windows', 'to train and to test on', 'use'),
  'world.clients': Field('devices', 'in all'),
  'world.clients_per_round': Field('devices', 'that take part in a round'),
  'world.samples_per_client': Field('windows', 'least and most'),
  'world.cohorts': Field('devices', 'that own a sensor', 'sensor'),
  'world.smallest_cohort': Field('devices', 'the fewest owners', 'part'),
  'world.tiers': Field('devices', 'of a tier', 'tier'),
  'world.tier_sources': Field(
    '',
    'where the share of a tier is from, of a fleet whose file tells it',
    'tier',
  ),
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
  'step': Field(
    'simulated s',
    'of a local step with a server in that round: until the activations are '
    'there, at the server, of the last layers, behind it; to receive and send '
    'the part of the model; and the number of steps',
    'part',
  ),
  **{
    metric.name + end: Field(
      metric.unit, f'of each device, as {metric.name}{end} in metrics.jsonl'
    )
    for metric in EVERY.values()
    for end in ('', '_own')
  },
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


def table(metric: Metric = F1) -> dict[str, Any]:
  """Gives the content of `columns.json`: file -> field -> unit, meaning.

  Args:
    metric: the run's main one; fields of the others are left out.
  """
  others = {name for other in OF.values() for name in _own(other)}
  others -= _own(metric)
  return {
    file: {
      name: {k: v for k, v in field._asdict().items() if v}
      for name, field in fields.items()
      if name not in others
    }
    for file, fields in FILES.items()
    if file != 'confusion.json' or metric is F1
  }


def _own(metric: Metric) -> set[str]:
  """Lists the fields that only runs of a main metric have."""
  found = {name for one in metric.pair for name in _family(one)}
  found.add(metrics.target_key(metric))
  return found | ({'f1_by_class'} if metric is F1 else set())


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
  # One family stands for all.
  others = [one for one in EVERY.values() if one is not F1]
  more = {name for one in others for name in _family(one)} - set(EVERY)
  for file, fields in FILES.items():
    rows = [
      f'| `{name}`{f", by {field.by}" if field.by else ""} | {field.unit} '
      f'| {field.meaning} |'
      for name, field in fields.items()
      if name not in more
    ]
    head = f'`{file}`\n\n| field | unit | meaning |\n|---|---|---|\n'
    parts.append(head + '\n'.join(rows))
  return '\n\n'.join(parts) + '\n'
