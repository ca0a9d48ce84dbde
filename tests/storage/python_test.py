"""Runs from Python: directories, results, predictions, tables, models."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import relief_jax
from relief_jax import simulate
from relief_jax.errors import InputError
from relief_jax.scoring import rules
from relief_jax.storage import records, runner
from relief_jax.tree import named_leaves
from tests.support import fake_simulate, tiny


def raw_tests(simulation):
  """The test windows in their own units, and their classes."""
  world = simulation._world
  bank, inputs = world.tests.bank, world.inputs
  x = {
    name: np.asarray(v) * inputs.std[name] + inputs.mean[name]
    for name, v in bank.x.items()
  }
  return x, np.asarray(bank.y)


def macro_f1(classes, y, guess):
  counts = np.zeros((len(classes), len(classes)))
  np.add.at(counts, (y, guess), 1)
  return rules.macro_f1(counts)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A finished run of two rounds with filled inputs: (result, simulation)."""
  folder = tmp_path_factory.mktemp('made') / 'run'
  config = tiny.config(method='fedavg', fill='input', rounds=2)
  return simulate.run(config, workdir=folder), simulate.Simulation(config)


def test_the_call_and_the_command_leave_the_same(fake, tmp_path):
  config = tiny.config(rounds=4)
  simulate.run(config, workdir=tmp_path / 'call')
  runner.run(config, tmp_path / 'command')
  for name in ('config.json', 'metrics.jsonl', 'summary.json', 'identity.json'):
    a, b = ((tmp_path / f / name).read_bytes() for f in ('call', 'command'))
    assert a == b, name
  assert (tmp_path / 'call' / 'checkpoints' / '4').is_dir()
  with pytest.raises(InputError, match='add --resume'):
    simulate.run(config, workdir=tmp_path / 'call')
  again = simulate.run(config, workdir=tmp_path / 'call', resume=True)
  assert again.summary['status'] == 'complete' and len(again.history) == 3


def test_without_a_directory_nothing_is_written(fake, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = simulate.run(tiny.config(rounds=4))
  assert found.summary['status'] == 'complete' and found.folder is None
  assert not list(tmp_path.iterdir())
  with pytest.raises(InputError, match='resume without a workdir'):
    simulate.run(tiny.config(rounds=4), resume=True)


def test_divergence_is_raised_and_written(fake, tmp_path):
  config = tiny.config(**{'hparams.client_lr': 1e3})
  with pytest.raises(simulate.Diverged, match='diverged by round 2'):
    simulate.run(config, workdir=tmp_path)
  assert relief_jax.load(tmp_path).summary['status'] == 'diverged'


def test_a_signal_is_raised_after_saving(fake, tmp_path, monkeypatch):
  advance = fake.Simulation.advance

  def interrupted(self):
    if self.round == 2:
      import os
      import signal

      os.kill(os.getpid(), signal.SIGINT)
    return advance(self)

  monkeypatch.setattr(fake.Simulation, 'advance', interrupted)
  with pytest.raises(KeyboardInterrupt, match='after round 4'):
    simulate.run(tiny.config(rounds=6), workdir=tmp_path)
  assert relief_jax.load(tmp_path).summary['round'] == 4
  monkeypatch.undo()


@pytest.mark.parametrize('without', [None, 'acc', 'mag'])
def test_predictions_are_those_of_the_evaluation(made, without):
  result, simulation = made
  x, y = raw_tests(simulation)
  there = [name for name in x if name != without]
  guess = result.predict({name: x[name] for name in there})
  assert (guess == result.predict(x, there)).all()  # left out or named
  last = result.history[-1]
  want = last['f1_without'][without] if without else last['f1_all']
  assert macro_f1(result.classes, y, guess) == pytest.approx(want, abs=1e-12)


def test_a_run_is_loaded(made):
  result, simulation = made
  loaded = relief_jax.load(result.folder)
  assert loaded.config.to_json() == result.config.to_json()
  assert loaded.history == json.loads(json.dumps(records.clean(result.history)))
  assert loaded.summary['status'] == 'complete'
  assert loaded.classes == result.classes == loaded.model.classes
  assert loaded.metrics.index.tolist() == [0, 2]
  assert loaded.metrics['f1'].iloc[-1] == loaded.summary['last']['f1']
  x, _ = raw_tests(simulation)
  np.testing.assert_array_equal(
    loaded.model.scores(x, ['acc']), result.model.scores(x, ['acc'])
  )


def test_a_load_says_nothing_of_libraries(made, caplog):
  """Orbax warned of what was our own wish: that the folder is only read."""
  loaded = relief_jax.load(made[0].folder)
  with caplog.at_level('WARNING'):
    assert loaded.model.method == 'fedavg'
  assert {record.name for record in caplog.records} <= {
    'relief_jax.runs.simulation'
  }


def test_a_model_file_goes_round(made, tmp_path):
  result, simulation = made
  path = tmp_path / 'new' / 'model.safetensors'
  result.export(path)
  found = relief_jax.load_model(path)
  assert found.spec == result.model.spec and found.classes == result.classes
  want = named_leaves(result.params)
  for name, leaf in named_leaves(found.params).items():
    np.testing.assert_array_equal(leaf, want[name], name)
  x, _ = raw_tests(simulation)
  np.testing.assert_array_equal(
    found.scores(x, ['gyro', 'mag']), result.model.scores(x, ['gyro', 'mag'])
  )
  import safetensors

  with safetensors.safe_open(path, 'numpy') as file:
    facts = file.metadata()
    names = set(file.keys())
  assert json.loads(facts['method']) == 'fedavg'
  assert json.loads(facts['backbone']) == 'cnn'
  assert tuple(json.loads(facts['classes'])) == result.classes
  assert json.loads(facts['modalities']) == ['acc', 'gyro', 'mag']
  assert 'params.head.w' in names and 'inputs.mean.acc' in names
  assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
  ('change', 'why'),
  [
    (lambda b: b[: len(b) // 2], 'expected a model'),
    (lambda b: b.replace(b'relief_jax model 1', b'relief_jax model 9'), 'form'),
    (lambda b: b.replace(b'params.head.w', b'params.head.x'), 'an unfitting'),
  ],
)
def test_another_file_is_no_model(made, tmp_path, change, why):
  path = tmp_path / 'model.safetensors'
  made[0].export(path)
  path.write_bytes(change(path.read_bytes()))
  with pytest.raises(InputError, match=why):
    relief_jax.load_model(path)
  with pytest.raises(InputError, match='ends in .safetensors'):
    made[0].export(tmp_path / 'model.npz')


@pytest.mark.parametrize(
  ('keys', 'client'),
  [
    ({'method': 'local_only'}, 3),
    pytest.param({'method': 'depthfl'}, None, marks=pytest.mark.slow),
    ({'method': 'fedavg', 'backbone': 'lora', 'model.base': 'random'}, None),
  ],
)
def test_every_kind_of_model_is_kept(keys, client, tmp_path):
  simulation = simulate.Simulation(tiny.config(**keys))
  model = simulation.model()
  simulate.Result(simulation.config, [], dict, lambda: model).export(
    tmp_path / 'm.safetensors'
  )
  found = relief_jax.load_model(tmp_path / 'm.safetensors')
  world = simulation._world
  shape = {
    m: (5, world.spec.width, c)
    for m, c in zip(model.modalities, world.spec.channels, strict=True)
  }
  rng = np.random.default_rng(0)
  x = {m: rng.normal(size=s) for m, s in shape.items()}
  logits = found.scores(x, ['acc', 'mag'], client)
  assert logits.shape == (5, len(model.classes)) and np.isfinite(logits).all()
  np.testing.assert_array_equal(logits, model.scores(x, ['acc', 'mag'], client))
  if client is None:
    with pytest.raises(InputError, match='one model for all'):
      found.predict(x, client=0)
  else:
    with pytest.raises(InputError, match='a client from 0 to 5'):
      found.predict(x)


@pytest.mark.parametrize(
  ('x', 'sensors', 'why'),
  [
    ({}, None, 'no sensor'),
    ({'acc': (2, 20, 2)}, ['acc', 'mag'], 'no windows of mag'),
    ({'acc': (2, 20, 2), 'eeg': (2, 20, 2)}, ['acc'], "unknown sensor 'eeg'"),
    ({'acc': (2, 19, 2)}, None, r'\(windows, 20, 2\)'),
    ({'acc': (2, 20, 2), 'mag': (3, 20, 2)}, None, 'the same number'),
  ],
)
def test_windows_that_do_not_fit(made, x, sensors, why):
  with pytest.raises(InputError, match=why):
    made[0].predict({k: np.zeros(s) for k, s in x.items()}, sensors)


def test_a_number_that_is_none(made):
  bad = np.full((1, 20, 2), np.nan)
  with pytest.raises(InputError, match='NaN'):
    made[0].predict({'acc': bad})
  good = np.zeros((1, 20, 2))
  assert made[0].predict({'acc': good, 'mag': bad}, ['acc']).shape == (1,)


def test_many_runs_are_one_table(fake, tmp_path):
  for lr in (0.1, 0.2):
    for seed in (0, 1):
      config = tiny.config(seed=seed, **{'hparams.client_lr': lr})
      runner.run(config, tmp_path / f'client_lr={lr}' / f'seed_{seed}')
  found = relief_jax.read_runs(tmp_path)
  assert len(found) == 4 * 3
  assert set(found['label']) == {'client_lr=0.1', 'client_lr=0.2'}
  assert {c for c in found if c.startswith('config.')} == {
    'config.method',
    'config.seed',
    'config.hparams.client_lr',
  }
  one = found[(found['run'] == 'client_lr=0.2/seed_1')]
  assert one['round'].tolist() == [0, 2, 4]
  assert one['config.hparams.client_lr'].unique().tolist() == [0.2]
  alone = relief_jax.load(tmp_path / 'client_lr=0.2' / 'seed_1').metrics
  pd.testing.assert_series_equal(
    one.set_index('round')['f1'], alone['f1'], check_names=False
  )
  assert relief_jax.read_runs(one_folder := tmp_path / 'client_lr=0.1/seed_0')[
    'run'
  ].unique().tolist() == ['.'], one_folder


@pytest.mark.parametrize('function', ['load', 'read_runs'])
def test_no_run(tmp_path, function):
  with pytest.raises(InputError, match='no run'):
    getattr(relief_jax, function)(tmp_path)


def test_a_run_without_its_model(fake, tmp_path):
  runner.run(tiny.config(), tmp_path)
  (tmp_path / 'checkpoints').rename(tmp_path / 'elsewhere')
  found = relief_jax.load(tmp_path)
  assert found.metrics['f1'].size == 3
  with pytest.raises(InputError, match='without a checkpoint'):
    found.predict({})


# The package.


def test_what_is_public_is_there():
  assert set(relief_jax.__all__) <= set(dir(relief_jax))
  for name in relief_jax.__all__:
    assert getattr(relief_jax, name) is not None
  with pytest.raises(AttributeError, match='nothing_such'):
    relief_jax.nothing_such  # noqa: B018


def test_importing_the_package_imports_nothing_large():
  code = (
    'import sys, relief_jax\n'
    'print([m for m in ("jax", "numpy", "pandas") if m in sys.modules])\n'
    'print(relief_jax.errors.InputError.__name__)\n'
    'print("jax" in sys.modules)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.split('\n')[:3] == ['[]', 'InputError', 'False']


def test_the_stand_in_is_used(fake):
  simulate.run(tiny.config())
  assert fake_simulate.CALLS == [0, 0, 2]
