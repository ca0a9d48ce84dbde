"""A tiny stand-in for `relief_jax.simulate`: its interface, no learning."""

import copy
from types import SimpleNamespace

import numpy as np

from relief_jax import algorithms
from relief_jax.config import validation
from relief_jax.runs.round_totals import Diverged
from relief_jax.storage import progress
from relief_jax.world import fleets

CALLS: list[int] = []  # rounds at which advance() was called


def set_devices(n):
  del n


class Simulation:
  """Walks a random path that depends on every step before it."""

  def __init__(self, config, data_dir=None, found=None):
    del found
    validation.validate(config)
    fleets.find(config.fleet)
    self.config = config.copy_and_resolve_references()
    if self.config.dataset == 'auto':
      self.config.dataset = 'synthetic'
    if not self.config.fill:
      self.config.fill = algorithms.facts(self.config.method).fill
    self.data_dir = data_dir
    self.task = SimpleNamespace(targets='classes')
    self.rounds, self.round = config.rounds, 0
    self.history, self.run = (
      [],
      SimpleNamespace(devices={}, cosines=[], confusion={}),
    )
    self.description = {
      'clients': config.clients,
      'clients_per_round': config.clients,
      'dataset': self.config.dataset,
      'tiers': {'low': config.clients},
      'speed_ratio': 20.0,
      'deadline': [1.0, 1.0],
      'parameters': 6,
      'layout': 'one',
      'fleet': {
        'client': list(range(self.config.clients)),
        'tier': ['low'] * self.config.clients,
        'owned': ['acc+gyro'] * self.config.clients,
      },
    }
    self._value = np.float64(config.seed + 0.1)
    self._state = {'w': np.full((2, 3), config.seed, np.float32), 'none': ()}

  @property
  def done(self):
    return bool(self.history) and self.round >= self.rounds

  def plans(self):
    return self.config.method == 'centralized'

  choice = 'layout one: as the config says'

  compiled = True

  def prepare(self):
    return 'about 1 kB of memory'

  def advance(self):
    CALLS.append(self.round)
    if self.history:
      every = self.config.eval_every
      steps = min(every - self.round % every, self.rounds - self.round)
      for _ in range(steps):
        self._value = np.float64(np.sin(1e3 * self._value + 1))
        self._state['w'] = np.sin(self._state['w'] + np.float32(0.3))
      self.round += steps
    if self.config.hparams.client_lr > 100 and self.round:
      raise Diverged(self.round, 'head', None)
    f1 = abs(float(self._value)) * min(1, self.round / 10)
    record = {
      'round': self.round,
      'sim_seconds': 1.5 * self.round,
      'joules': 2.0 * self.round,
      'up_bytes': 1e6 * self.round,
      'down_bytes': 1e6 * self.round,
      'f1': f1,
      'f1_all': f1,
      'accuracy': f1,
      'f1_global': f1,
      'f1_own': f1,
      'f1_own_rare_owners': f1,
      'f1_rare_only': None,
      'f1_without_rare': f1,
      'f1_by_subset': {'acc+gyro': f1},
      'f1_by_tier': {'low': f1},
      'f1_by_class': {'sit': f1, 'walk': f1},
      'test_loss': 1.0,
      'divergence': {'acc': float('nan'), 'head': float(self._value)},
      'trained_share': {'acc': 0.5, 'head': 1.0},
      'loss': float(self._state['w'].sum()),
      'wall_seconds': 0.01 * self.round,
    }
    self.history.append(record)
    self.run.confusion = {
      'round': self.round,
      'classes': ['sit', 'walk'],
      'counts': [[8, 2], [1, 9]],
    }
    count = self.config.clients
    self.run.devices = {
      'round': self.round,
      'rounds': [5] * count,
      'trained': {'acc': [5] * count, 'head': [3] * count},
      'last': {
        'round': self.round,
        'client': list(range(count)),
        'download': [0.1] * count,
        'compute': [0.1 * (i + 1) for i in range(count)],
        'upload': [0.2] * count,
      }
      if self.round
      else None,
      'f1': [f1 * (i + 1) / count for i in range(count)],
    }
    return record

  def model(self):
    return SimpleNamespace(params=copy.deepcopy(self._state))

  def snapshot(self):
    return {
      'round': np.int64(self.round),
      'value': self._value,
      'state': copy.deepcopy(self._state),
      'empty': np.zeros((0, 2), np.float32),
    }

  def restore(self, snapshot, history):
    self.round = int(snapshot['round'])
    self._value = np.float64(snapshot['value'])
    self._state = snapshot['state']
    self.history = list(history)

  def summary(self):
    costs = ('f1', 'sim_seconds', 'joules', 'up_bytes', 'down_bytes')
    last = self.history[-1] if self.history else dict.fromkeys(costs, 0.0)
    return {
      'method': self.config.method,
      'dataset': self.config.dataset,
      'backbone': self.config.backbone,
      'clients': self.config.clients,
      'rounds': self.rounds,
      'seed': self.config.seed,
      'last': {'f1': last['f1']},
      'best': {'f1': max((r['f1'] for r in self.history), default=0.0)},
      'rounds_to_target': None,
      'sim_seconds_per_round': 1.5,
      'sim_seconds_total': last['sim_seconds'],
      'sim_seconds_to_target': None,
      'joules_total': last['joules'],
      'joules_to_target': None,
      'up_bytes_total': last['up_bytes'],
      'down_bytes_total': last['down_bytes'],
      'wall_seconds': {'compile': 0.1, 'run': 0.2},
      'rounds_per_second': 1.0,
      'clients_per_second': 1.0,
      'compiles': 1,
      'peak_memory_bytes': 0,
      'layout': 'one',
      'fleet': {
        'client': list(range(self.config.clients)),
        'tier': ['low'] * self.config.clients,
        'owned': ['acc+gyro'] * self.config.clients,
      },
    }


class Notes(progress.Quiet):
  """Keeps what a user is told."""

  def __init__(self):
    self.lines = []

  def note(self, text):
    self.lines.append(text)
