"""The smallest world in which everything still happens; made in milliseconds.

Shapes are tiny because the cost of a test is its compilation. Tasks and
compiled rounds are kept, so tests that share a shape share a program.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import algorithms, blocks, costs, models, world
from relief_jax import config as config_lib
from relief_jax.budgets import deadlines
from relief_jax.models.encoders import Spec
from relief_jax.models.mixture import Mixture
from relief_jax.settings import Setting
from relief_jax.task import Task
from relief_jax.types import Bank, Fleet, Population

MODALITIES = ('acc', 'gyro', 'mag')
CHANNELS = (2, 3, 2)

HPARAMS = {
  'client_lr': 0.1,
  'client_momentum': 0.9,
  'server_lr': 1.0,
  'ema': 0.5,
  'prox': 0.01,
  'clip_norm': 1.0,
  'noise_multiplier': 0.0,
  'dropout': 0.3,
  'deadline': float('inf'),
  'deadline_end': float('inf'),
  'rounds': 3.0,
  'wait': 0.0,
}

# What conftest.py takes away.
FULL = {
  'xla_backend_optimization_level': 3,
  'xla_llvm_disable_expensive_passes': False,
  'xla_cpu_use_fusion_emitters': True,
}


@dataclasses.dataclass(frozen=True)
class Given:
  """Holds a static setting and the values that go with it, as one.

  Attributes:
    static: the setting; its fields are read through.
    hparams: traced hyperparameters.
  """

  static: Setting
  hparams: dict[str, Any]

  def __getattr__(self, name):
    return getattr(self.static, name)

  def _replace(self, **fields) -> 'Given':
    hparams = fields.pop('hparams', self.hparams)
    return Given(self.static._replace(**fields), hparams)


_made: dict[int, tuple[Task, str, Spec]] = {}
_steps: dict[tuple, tuple] = {}


def spec(**overrides) -> Spec:
  """Three modalities of 2, 3 and 2 channels unless told otherwise."""
  names = overrides.pop('modalities', MODALITIES)
  values = dict(
    modalities=names,
    channels=CHANNELS[: len(names)],
    width=16,
    classes=3,
    filters=(3, 4),
    kernel=3,
    stride=2,
    hidden=6,
    rank=2,
    lora_alpha=4.0,
  )
  return Spec(**{**values, **overrides})


@functools.cache
def _task(backbone: str, found: Spec) -> Task:
  task = models.MODELS[backbone](found)
  _made[id(task)] = task, backbone, found
  return task


def task(backbone: str = 'cnn', **overrides) -> Task:
  """The task of `spec(**overrides)`; one object for equal arguments."""
  return _task(backbone, spec(**overrides))


def backbone(method) -> str:
  """The model that a method is tried with: `lora` where it needs adapters."""
  return 'lora' if algorithms.facts(method).adapters else 'cnn'


def needs(method) -> tuple[tuple[str, Any], ...]:
  """What a method's model has beside its `backbone`, fields of a spec."""
  facts = algorithms.facts(method)
  if facts.experts:
    return ('fusion', 'experts'), ('mixture', Mixture(3, 2, 5))
  return (('exits', facts.exits),)


def model(method) -> dict[str, Any]:
  """The keys of a config that a method needs."""
  found = {'backbone': backbone(method)}
  if algorithms.facts(method).experts:
    found |= {'model.fusion': 'experts', 'model.experts.number': 3}
  return found


def spec_of(task: Task) -> Spec:
  """The spec of a task made here."""
  return _made[id(task)][2]


def owned_by_default(clients: int, modalities: int) -> np.ndarray:
  """[N, M] bool: nested, as on real fleets; everybody has the first one."""
  number = (-np.arange(clients)) % modalities + 1
  if modalities == 3:  # clients 0 and 3 own all: a rare cohort of two
    number = np.array([3, 1, 2])[np.arange(clients) % 3]
  return np.arange(modalities) < number[:, None]


def population(
  task: Task,
  clients: int = 5,
  owned=None,
  seed: int = 0,
  samples=None,
  fill: float = 0.0,
) -> Population:
  """Clients with learnable data, unequal in speed, sensors and samples.

  Args:
    task: made by `task`.
    clients: N.
    owned: [N, M] bools, None for `owned_by_default`.
    seed: of the data, speeds, and the frozen base.
    samples: [N] windows of each client, None for 5, 6, 7, ...; 0 is padding.
    fill: what an absent sensor delivers (-mean / std for a physical zero).
  """
  found = spec_of(task)
  num = len(found.modalities)
  rng = np.random.default_rng(seed)
  if owned is None:
    owned = owned_by_default(clients, num)
  owned = np.asarray(owned, bool)
  clients = len(owned)
  samples = np.asarray(
    5 + np.arange(clients) if samples is None else samples, np.int32
  )
  total = int(samples.sum())
  rows = np.zeros((clients, max(int(samples.max()), 1)), np.int32)
  ends = np.cumsum(samples)
  before = np.maximum(np.arange(total) - 1, 0)
  for n, (end, count) in enumerate(zip(ends, samples, strict=True)):
    before[end - count : end - count + 1] = end - count
    if count:  # padded with the client's first row, as `partition.pad_rows`
      rows[n] = end - count
      rows[n, :count] = np.arange(end - count, end)
  y = rng.integers(0, found.classes, total)
  x = {}
  for name, channels in zip(found.modalities, found.channels, strict=True):
    centre = rng.normal(size=(found.classes, channels))
    noise = rng.normal(size=(total, found.width, channels))
    x[name] = jnp.asarray(centre[y][:, None] + noise, jnp.float32)
  bank = Bank(
    x=x,
    fill={
      name: jnp.full(channels, fill, jnp.float32)
      for name, channels in zip(found.modalities, found.channels, strict=True)
    },
    y=jnp.asarray(y, jnp.int32),
    before=jnp.asarray(before, jnp.int32) if task.past else None,
  )
  fleet = Fleet(
    id=jnp.arange(clients, dtype=jnp.int32),
    owned=jnp.asarray(owned),
    tier=jnp.asarray(owned.sum(1) - 1, jnp.int32),
    samples=jnp.asarray(samples),
    # More sensors on faster devices, 1 to 9 MFLOP/s.
    speed=jnp.asarray(
      1e6 * owned.sum(1) ** 2 * rng.uniform(0.9, 1, clients), jnp.float32
    ),
    uplink=jnp.asarray(rng.uniform(1e5, 1e6, clients), jnp.float32),
    downlink=jnp.asarray(rng.uniform(1e5, 1e6, clients), jnp.float32),
    watts=jnp.asarray(rng.uniform(1, 5, (clients, 4)), jnp.float32),
    budget=jnp.ones(clients),
  )
  fleet = deadlines.with_budgets(fleet, task.work, task.blocks.modality)
  frozen = task.base(jax.random.key(seed)) if task.base else {}
  if found.cached:
    bank = world.cache_features(found, frozen, bank)
  return Population(
    bank=bank, fleet=fleet, rows=jnp.asarray(rows), frozen=frozen
  )


def setting(
  population: Population, method: str = 'relief', **overrides
) -> Given:
  """Two steps of batch 4, everybody in, no deadline, absent sensors skipped.

  Args:
    population: tells the number of clients.
    method: whose options it holds.
    **overrides: fields of `Setting`, hyperparameters and options of the
      method, each by its own name.
  """
  clients = population.fleet.id.shape[0]
  facts = algorithms.facts(method)
  options, hparams, fields = {}, dict(HPARAMS), {}
  for key, value in overrides.items():
    if key in hparams:
      hparams[key] = value
    elif key in facts.rows:
      options[key] = value
    else:
      fields[key] = value
  values = dict(clients=clients, cohort=clients, steps=2, batch=4)
  return Given(
    Setting(options=facts.make(options), **{**values, **fields}),
    {k: jnp.float32(v) for k, v in hparams.items()},
  )


def deadline(task: Task, population: Population, kind='tight') -> float:
  """The number behind a named deadline."""
  return deadlines.resolve(
    kind,
    population.fleet,
    task.work,
    task.blocks.modality,
    blocks.least(task),
  )


def with_share(task: Task, population: Population, share) -> Population:
  """Budgets at deadline 1 between the shared groups alone (0) and all (1).

  Args:
    task: of the model.
    population: of clients.
    share: a number for all or [N] numbers; below 0 nothing fits.
  """
  fleet, modality = population.fleet, np.asarray(task.blocks.modality)
  shared = np.broadcast_to(modality < 0, (len(fleet.owned), len(modality)))
  every = shared | np.asarray(fleet.owned)[:, modality]
  least, most = (
    costs.step_flops(task.work, fleet.owned, jnp.asarray(train))
    for train in (shared, every)
  )
  share = jnp.broadcast_to(jnp.asarray(share, jnp.float32), least.shape)
  budget = least + share * (most - least)
  return population.replace(fleet=fleet.replace(budget=budget))


def only(population: Population, *clients: int) -> Population:
  """The same world, same shapes, where all others are padding."""
  fleet = population.fleet
  kept = jnp.isin(fleet.id, jnp.asarray(clients))
  samples = jnp.where(kept, fleet.samples, 0)
  return population.replace(fleet=fleet.replace(samples=samples))


def algorithm(method, task: Task, setting: Given):
  """The algorithm: `method` is a name or a factory `(task, setting) -> `."""
  return algorithms.build(method, task, setting.static)


def compiled(method, task: Task, setting: Given, quick: bool = True):
  """A compiled round, (key, state, population, hparams) -> (state, info).

  Hyperparameters are traced; equal static settings share one program.

  Args:
    method: a name or a factory.
    task: made by `task`.
    setting: of the round.
    quick: as conftest.py sets it; else optimised, as in a real run.
  """
  identity = method, id(task), setting.static, quick
  if identity not in _steps:
    # The task is held too: an id is only unique while its object lives.
    _steps[identity] = (
      jax.jit(
        algorithm(method, task, setting).step,
        compiler_options=None if quick else FULL,
      ),
      task,
    )
  return _steps[identity][0]


def clear() -> None:
  """Forgets compiled rounds."""
  _steps.clear()


@functools.cache
def _init(number: int):
  return jax.jit(_made[number][0].init)


def init(task: Task, seed: int = 0):
  """Fresh parameters of a task made here."""
  return _init(id(task))(jax.random.key(seed))


def start(method, task: Task, setting: Given, seed: int = 0, params=None):
  """The state before the first round."""
  if params is None:
    params = init(task, seed)
  return algorithm(method, task, setting).init(jax.random.key(seed), params)


def run(
  method,
  task: Task,
  population: Population,
  setting: Given,
  rounds: int = 3,
  seed: int = 0,
  params=None,
  quick: bool = True,
):
  """Some rounds, one by one; yields (state, info) after each."""
  state = start(method, task, setting, seed, params)
  one = compiled(method, task, setting, quick)
  for number in range(rounds):
    key = round_key(seed, number)
    state, info = one(key, state, population, setting.hparams)
    yield state, info


def round_key(seed: int, number: int) -> jax.Array:
  """The key of one round of `run`."""
  return jax.random.fold_in(jax.random.key(seed + 1), number)


def step(
  method,
  task: Task,
  population: Population,
  setting: Given,
  rounds: int = 1,
  seed: int = 0,
  params=None,
):
  """(state, info) after `rounds` compiled rounds."""
  every = run(method, task, population, setting, rounds, seed, params)
  return list(every)[-1]


def config(**overrides):
  """A small synthetic config for `simulate.Simulation`.

  Args:
    **overrides: by (dotted) key, `**{'relief.rule': 'static'}`.
  """
  c = config_lib.default()
  c.dataset, c.clients = 'synthetic', 6
  c.rounds, c.rounds_per_call, c.eval_every = 4, 2, 2
  c.local_steps, c.batch = 2, 4
  c.data.width, c.data.stride = 20, 20
  c.data.test_subjects, c.data.public_subjects = (5,), 1
  c.synthetic.update(
    subjects=5, channels=2, classes=4, windows_per_class=4, modalities=3
  )
  c.model.update(
    filters=(3, 4), kernel=3, hidden=6, rank=2, lora_alpha=4.0, base_steps=3
  )
  c.devices = 1
  c.update_from_flattened_dict(overrides)
  return c
