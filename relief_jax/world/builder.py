"""Builds the world of a run on the host: data, clients, fleet, frozen base.

The partition of data and sensors comes from `client_data.py`; this file scales
the windows and adds what the method and the model need.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from relief_jax import algorithms, blocks, models
from relief_jax.budgets import deadlines, memory
from relief_jax.clients import sensor_faults
from relief_jax.datasets import windows
from relief_jax.engine import ambient, placement
from relief_jax.errors import InputError, unknown
from relief_jax.models.encoders import Spec
from relief_jax.online import draw as online_lib
from relief_jax.optimizers import reading
from relief_jax.scoring import targets
from relief_jax.settings import Setting
from relief_jax.types import Bank, HeldOut, OwnWindows, Population
from relief_jax.world import base as base_lib
from relief_jax.world import (
  client_data,
  fleets,
  model_spec,
  order,
  padding,
  partition,
)


class Inputs(NamedTuple):
  """Holds what raw windows are scaled by, and what absent sensors are given.

  Attributes:
    mean: {modality: [channels]} float32, in the data's own units.
    std: likewise; a scaled window is (x - mean) / std.
    fill: {modality: [channels]} float32, scaled; what a sensor that is not
      there delivers under `fill='input'`.
  """

  mean: dict[str, np.ndarray]
  std: dict[str, np.ndarray]
  fill: dict[str, np.ndarray]


class World(NamedTuple):
  """Holds the data, clients, model description and deadlines of a simulation.

  Attributes:
    population: clients and training windows.
    tests: windows of the held-out persons, and of the devices' own.
    persons: names of those on no device, in the order of `HeldOut.person`.
    validation: [persons] bool, to choose values by and not to test on.
    spec: of the model.
    dataset: name, `auto` resolved.
    title: of the data set for readers (`Windows.title`).
    tiers: names of the fleet's tiers.
    classes: [C] names, no two of them the same.
    rare: number of the modality that `f1_rare_*` are about.
    fill: `input` or `skip`.
    deadline: of the first round (inf: none).
    deadline_end: of the last round.
    inputs: what windows were scaled by.
    subjects: persons behind train, test, public and validation windows, by
      number, or by name where they have one.
    windows: how many there are, by the same names, and of the devices' own
      later ones; without those that there are none of.
    sources: of the tiers' shares, by tier, of a fleet that tells them.
    notes: what of the data cannot be used, a sentence each.
  """

  population: Population
  tests: HeldOut
  persons: tuple[str, ...]
  validation: tuple[bool, ...]
  spec: Spec
  dataset: str
  title: str
  tiers: tuple[str, ...]
  classes: tuple[str, ...]
  rare: int
  fill: str
  deadline: float
  deadline_end: float
  inputs: Inputs
  subjects: dict[str, list[int | str]]
  windows: dict[str, int]
  sources: dict[str, str]
  notes: tuple[str, ...] = ()


@ambient.pinned()
def build(
  config: ml_collections.ConfigDict,
  data_dir: str | None,
  layout: placement.Layout | None = None,
) -> World:
  """Builds a world from its config; for LoRA also the frozen base.

  Args:
    config: of the run.
    data_dir: folder of the data sets, None to search.
    layout: of the clients; where their rows are held. None: one device.

  Raises:
    InputError: whatever is wrong with the config, the data or the fleet.
  """
  absent = algorithms.resolve_fill(config.method, config.fill)
  data, dataset, split, parts, fleet, own = client_data.build_clients(
    config, data_dir
  )
  modalities = tuple(data.x)
  pretrained = base_lib.pretrains(config)
  spec = model_spec.describe(config, data, pretrained)
  task = models.make(config.backbone, spec, fleet.memory is not None)
  group_modality = task.blocks.modality
  if task.by_batch and config.data.own_share:
    raise InputError(
      f'config.data.own_share={config.data.own_share:g} for a model that '
      'depends on the statistics of a batch (BatchNorm)',
      'one that can be tested on the samples of many devices at once',
      'set --config.data.own_share=0, or take GroupNorm or LayerNorm',
    )
  fleet = deadlines.with_budgets(fleet, task.work, group_modality)
  facts = algorithms.facts(config.method)
  _check_targets(config, data, facts)
  if facts.rounds and not facts.splits:
    memory.check(
      task,
      Setting(
        batch=config.batch, client_optimizer=reading.read(config)
      ).memory_step,
      fleet,
      absent == 'input' and not facts.skips,
      facts.budgeted,
      fleets.tier_names(config.fleet),
      config.over_budget == 'sit_out',
    )

  owned = np.asarray(fleet.owned)
  by_owner = {
    m: np.concatenate(
      [np.zeros(0, np.int64), *(parts[n] for n in np.flatnonzero(owned[:, i]))]
    )
    for i, m in enumerate(modalities)
  }
  if config.reuse:  # a window counts once, however many hold it
    by_owner = {m: np.unique(own) for m, own in by_owner.items()}
  scaled, mean, std = windows.zscore(data, by_owner)
  zero = config.fill_value == 'zero'
  fill = {
    m: -mean[m] / std[m] if zero else np.zeros_like(mean[m]) for m in modalities
  }

  def bank(rows, parts=None):
    before = None
    if task.past:
      before = jnp.asarray(order.before(data, rows, parts or [rows]), jnp.int32)
    return Bank(
      x={m: jnp.asarray(scaled[m][rows]) for m in modalities},
      fill={m: jnp.asarray(fill[m], scaled[m].dtype) for m in modalities},
      y=jnp.asarray(data.y[rows]),
      before=before,
    )

  online = _online(config, modalities, owned)
  # Epochs and streams run over whole tables, padding too.
  exact = config.local_epochs > 0 or online is not None
  rounded = int if exact else padding.rounded

  def padded(rows, parts=None):
    lacking = rounded(len(rows)) - len(rows)
    return bank(np.concatenate([rows, rows[:1].repeat(lacking)]), parts)

  # Rows in the training bank instead of in the whole data set.
  place = np.zeros(len(data.y), np.int64)
  place[split.train] = np.arange(len(split.train))
  width = rounded(max(map(len, parts)))

  def rows(first, last):
    own = [place[p] for p in parts[first:last]]
    return partition.pad_rows(own, width)[0]

  population = Population(
    bank=padded(split.train, parts),
    fleet=fleet,
    rows=placement.shard_rows(
      rows, (len(parts), width), layout or placement.Layout()
    ),
    frozen={},
    online=online,
  )
  away = np.concatenate([split.test, split.validation])
  persons, person = np.unique(data.subject[away], return_inverse=True)
  person = padding.filled(person, rounded(len(person)))
  tests = HeldOut(
    bank=padded(away),
    person=jnp.asarray(person, jnp.int32),
    own=_own_windows(padded, rounded, split, own, fleet),
  )
  if task.base:
    key = jax.random.fold_in(ambient.key(config.seed), client_data.BASE)
    if pretrained:
      base = base_lib.kept(
        key,
        config.backbone,
        spec,
        bank(split.public),
        config.model.base_steps,
        config.model.base_dropout,
      )
    else:
      base = task.base(key)
    population = dataclasses.replace(population, frozen=base)
    if spec.cached:
      cached = functools.partial(base_lib.cache_features, spec, base)
      population = dataclasses.replace(population, bank=cached(population.bank))
      tests = dataclasses.replace(tests, bank=cached(tests.bank))
      if tests.own:
        features = dataclasses.replace(tests.own, bank=cached(tests.own.bank))
        tests = dataclasses.replace(tests, own=features)

  deadline, deadline_end = _deadlines(config, fleet, task)
  return World(
    population=population,
    tests=tests,
    persons=tuple(str(data.people.get(p, p)) for p in persons.tolist()),
    validation=tuple(np.isin(persons, data.subject[split.validation]).tolist()),
    spec=spec,
    dataset=dataset,
    title=data.title,
    tiers=fleets.tier_names(config.fleet),
    sources=fleets.sources(config.fleet),
    classes=_distinct(data.classes),
    rare=_rare(config, fleet, modalities),
    fill=absent,
    deadline=deadline,
    deadline_end=deadline_end,
    inputs=Inputs(mean, std, fill),
    subjects={
      name: [
        data.people.get(person, person)
        for person in np.unique(data.subject[rows]).tolist()
      ]
      for name, rows in split._asdict().items()
      if name != 'own'  # those of the training windows
    },
    windows={
      name: len(rows) for name, rows in split._asdict().items() if len(rows)
    },
    notes=data.notes,
  )


def _check_targets(config, data, facts) -> None:
  """Refuses what needs classes to predict, or numbers as inputs, of other data.

  Raises:
    InputError: such a method or setting.
  """
  kind = data.targets
  faults = [k for k in sensor_faults.LEVELS if config.sensor_faults[k]]
  if faults and data.text:
    raise InputError(
      f'config.sensor_faults.{faults[0]} for texts',
      'data of numbers',
      f'set --config.sensor_faults.{faults[0]}=0',
    )
  if kind == targets.CLASSES:
    return
  for found, cure in (
    (facts.classes and f'config.method={config.method}', 'method=fedavg'),
    (
      config.online.stream.buffer and 'config.online.stream',
      'online.stream.buffer=0',
    ),
    (config.backbone == 'lora' and 'config.backbone=lora', 'backbone=cnn'),
  ):
    if found:
      raise InputError(
        f'{found} for data whose targets are {kind}',
        'data of classes',
        f'set --config.{cure}',
      )


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
  """Gives a name that several classes share its number, too.

  >>> _distinct(('sit', 'walk', 'sit'))
  ('sit (0)', 'walk', 'sit (2)')
  """
  return tuple(
    f'{name} ({i})' if names.count(name) > 1 else name
    for i, name in enumerate(names)
  )


def _own_windows(padded, rounded, split, own, fleet) -> OwnWindows | None:
  """Gathers the devices' own later windows; None where none are held back."""
  if not len(split.own):
    return None
  rows, count = partition.pad_rows(
    [np.searchsorted(split.own, part) for part in own],
    rounded(max(map(len, own))),
  )
  # Whoever shares sensors and speed shares a model: fewer are run per batch.
  alike = np.lexsort((np.asarray(fleet.tier), *np.asarray(fleet.owned).T))
  place = alike[:, None] * rows.shape[1] + np.arange(rows.shape[1])
  real = np.arange(rows.shape[1]) < count[alike][:, None]
  order = place[real]
  return OwnWindows(
    bank=padded(split.own, own),
    rows=jnp.asarray(rows),
    count=jnp.asarray(count),
    order=jnp.asarray(padding.filled(order, rounded(len(order))), jnp.int32),
    first=jnp.int32(len(split.train)),
  )


def _online(config, modalities, owned):
  """Draws the online processes of the world.

  Raises:
    InputError: processes that no world can have, or a method without rounds
      or with rounds that are arrivals.
  """
  rng = np.random.default_rng([config.seed, client_data.ONLINE])
  found = online_lib.draw(config.online, modalities, owned, rng)
  if found is not None and algorithms.facts(config.method).arrivals:
    raise InputError(
      f'config.method is {config.method!r} with config.online',
      'a method with rounds: the online world changes from round to round, and '
      'between two arrivals there is none',
      'leave --config.online off, or take a synchronous method',
    )
  if found is not None and not algorithms.facts(config.method).rounds:
    raise InputError(
      f'config.method is {config.method!r} with config.online',
      'a method with rounds on devices',
      'leave --config.online off: it trains on all windows as recorded',
    )
  return found


def _rare(config, fleet, modalities) -> int:
  name = config.data.rare
  if not name:
    return fleets.rarest(fleet, modalities)
  if name not in modalities:
    raise unknown('modality in config.data.rare', name, modalities)
  return modalities.index(name)


def _deadlines(config, fleet, task) -> tuple[float, float]:
  if not algorithms.facts(config.method).budgeted:
    return math.inf, math.inf

  def resolve(kind):
    value = deadlines.resolve(
      kind, fleet, task.work, task.blocks.modality, blocks.least(task)
    )
    deadlines.check(
      fleet,
      task.work,
      task.blocks.always,
      value,
      fleets.tier_names(config.fleet),
      config.over_budget == 'sit_out',
    )
    return value

  start = resolve(config.deadline)
  if config.deadline_end == '':
    return start, start
  end = resolve(config.deadline_end)
  if math.isinf(start) or math.isinf(end):
    raise InputError(
      f'a deadline from {config.deadline!r} to {config.deadline_end!r}',
      'two finite deadlines for a schedule',
      'set --config.deadline=tight --config.deadline_end=full',
    )
  return start, end
