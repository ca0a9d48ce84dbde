"""The layout is found by time, kept for its shapes, and changes no result."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import simulate
from relief_jax.engine import placement
from relief_jax.errors import InputError
from relief_jax.runs import layout_rules, tuner
from relief_jax.storage import identity, progress, records, runner
from tests.support import tiny


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """A cache of this test's own."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'relief_jax' / 'layouts'


@pytest.fixture
def timed(monkeypatch):
  """Made-up seconds in place of a measurement, and who was measured."""
  calls = []
  seconds = {'one': 3.0, 'one@2': 2.9, 'one@1': 1.0, 'block:8': 2.0}

  def measure(name, part):
    del part
    calls.append(name)
    return seconds[name]

  monkeypatch.setattr(tuner, 'measure', measure)
  monkeypatch.setattr(tuner, 'sample', lambda job: job)
  return calls, seconds


def config(**overrides):
  return tiny.config(
    **{
      'layout': 'tune',
      'devices': 4,
      'clients': 35,
      'rounds': 2,
      'synthetic.modalities': 2,
      'synthetic.windows_per_class': 6,
      **overrides,
    }
  )


def job(layout='one', **overrides):
  task = tiny.task('cnn', modalities=('acc', 'gyro'), filters=(4,))
  population = tiny.population(task, clients=9)
  setting = tiny.setting(
    population, layout=placement.parse_layout(layout, 1), **overrides
  )
  spec = tiny.spec_of(task)
  return tuner.Job(
    'relief', 'cnn', spec, task, setting.static, setting.hparams, population
  )


def settle():
  return tuner.settle('tune', job())


def test_the_fastest_is_taken_and_kept(timed, folder):
  calls, seconds = timed
  first = simulate.Simulation(config())
  assert calls == ['one', 'one@2', 'one@1', 'block:8']
  assert (first.choice.name, first.choice.source) == ('one@1', 'timed')
  # The mesh of four devices has gone, and so has the padding of its rows.
  assert first.config.layout == 'one@1'
  assert first._population.rows.shape[0] == 35
  (file,) = folder.iterdir()
  assert first.choice.file == str(file)
  assert json.loads(file.read_text())['seconds'] == seconds
  # From now on nothing is timed, whichever way it is asked for.
  for asked in ('auto', 'tune'):
    again = simulate.Simulation(config(layout=asked, seed=1))
    assert (again.choice.name, again.choice.source) == ('one@1', 'cache')
    assert again.choice.seconds == seconds and not calls[4:]


def test_auto_times_nothing(timed, folder):
  found = simulate.Simulation(config(layout='auto'))
  assert (found.choice.name, found.choice.source) == ('one', 'rule')
  assert str(found._layout) == 'one on 4 device(s)'
  assert not timed[0] and not folder.exists()
  assert 'layout=tune' in str(found.choice)


def test_what_is_broken_is_ignored_once_and_written_anew(timed, folder, caplog):
  settle()
  (file,) = folder.iterdir()
  good = json.loads(file.read_text())
  for text in (
    '',
    '{"key": ',
    '[]',
    json.dumps({**good, 'layout': 'one@64'}),
    json.dumps({**good, 'key': {}}),
    json.dumps({**good, 'seconds': {'one': 'fast'}}),
  ):
    file.write_text(text)
    caplog.clear()
    assert settle().source == 'timed', text
    (line,) = caplog.messages
    assert str(file) in line and '\n' not in line
    assert json.loads(file.read_text()) == good
  assert list(folder.iterdir()) == [file]


def test_without_a_cache_it_still_runs(timed, folder, monkeypatch):
  folder.parent.parent.write_text('a file where a folder should be')
  assert settle().name == 'block:8'
  monkeypatch.setattr(tuner.cache, 'user_cache', lambda: None)
  found = settle()
  assert (found.name, found.file) == ('block:8', None)


def test_a_key_for_every_shape_version_and_machine(monkeypatch):
  made = [tuner.key(job())]
  # Values are no shapes, and the layout is what is sought.
  same = job('block:3', client_lr=0.5)
  assert tuner.key(same) == made[0]
  for other in (
    job(steps=3),
    job(batch=5),
    job(cohort=4),
    job(epochs=1),
    job(keep_client_state=True),
    job()._replace(method='fedavg'),
    job()._replace(backbone='lora'),
    job()._replace(spec=tiny.spec(hidden=7)),
  ):
    made.append(tuner.key(other))
  with monkeypatch.context() as patch:
    patch.setattr(tuner.importlib.metadata, 'version', lambda name: '99')
    made.append(tuner.key(job()))
  with monkeypatch.context() as patch:
    patch.setattr(tuner.compile_cache, 'kind', lambda: 'another')
    made.append(tuner.key(job()))
  with monkeypatch.context() as patch:
    patch.setenv('XLA_FLAGS', '--none')
    made.append(tuner.key(job()))
  paths = {tuner._path(identity) for identity in made}
  assert len(paths) == len(made)


@pytest.mark.slow
def test_measure_takes_the_least_of_three_rounds_after_one():
  part = tuner.sample(job(epochs=3, batch=1))
  small = part.job.setting
  assert (small.epochs, part.rows.shape) == (1, (9, 5))
  assert part.job.population.fleet.samples.max() == 5
  ticks = iter([0, 100, 200, 207, 300, 303, 400, 404.0])
  assert tuner.measure('one', part, lambda: next(ticks)) == 3
  assert next(ticks, None) is None


def test_what_does_not_fit_is_not_timed():
  double, one = jax.jit(lambda v: v + v), (jnp.ones(1000),)
  assert tuner._fitting(double, one, None)(*one).sum() == 2000
  assert tuner._fitting(double, one, 1) is None


def test_a_sample_is_dealt_over_the_fleet(monkeypatch):
  monkeypatch.setattr(tuner, '_CLIENTS', 3)
  part = tuner.sample(job())
  np.testing.assert_array_equal(part.job.population.fleet.id, [0, 3, 6])
  np.testing.assert_array_equal(part.rows, job().population.rows[::3])
  assert part.job.setting.cohort == part.job.setting.clients == 3


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
def test_candidates_are_few_and_begin_with_the_rule(backend):
  for cohort in (1, 10, 100, 10**5):
    for devices in (1, 2, 8, 64):
      names = layout_rules.candidates(cohort, devices, backend)
      assert names[0] == ('one' if backend == 'cpu' else 'all')
      assert len(set(names)) == len(names) <= 5
      for name in names[1:]:
        count = int(name.partition('@')[2] or devices)
        assert count <= devices
        block = name.partition('@')[0].partition(':')[2]
        assert not block or int(block) * count <= cohort


def test_fewer_devices_after_the_name():
  assert placement.parse_layout('block:3@2', 4).mesh.size == 2
  assert placement.parse_layout('one@1', 0) == placement.Layout(1, None)
  for name in ('one@', 'one@0', 'block:0', 'block:', 'tune', 'all@x', 'two'):
    with pytest.raises(InputError, match="'tune', 'one'"):
      placement.parse_layout(name)
  with pytest.raises(InputError, match='at most the 2 device'):
    placement.parse_layout('one@3', 2)


@pytest.mark.slow
def test_a_tuned_run_equals_any_other(folder, tmp_path, capsys):
  """Really timed; then the log, the record, the results and the way back."""
  own = config(devices=2, clients=17)
  done = runner.run(own, tmp_path / 'a', reporter=progress.Lines())
  assert done == 'complete'
  lines = capsys.readouterr().out.splitlines()
  (line,) = [line for line in lines if line.startswith('layout ')]
  (file,) = folder.iterdir()
  assert 'timed in' in line and str(file) in line
  summary = records.read_json(tmp_path / 'a' / 'summary.json')
  choice = summary['layout_choice']
  assert (
    choice['name']
    in choice['seconds'].keys()
    == {
      'one',
      'one@1',
      'block:8',
    }
  )
  assert all(v > 0 for v in choice['seconds'].values())
  assert choice['tuning_seconds'] > 0
  stored = records.read_json(tmp_path / 'a' / 'config.json')
  assert stored['layout'] == choice['name']
  # Resumed, it keeps its layout, also where another would be found today.
  file.unlink()
  again = runner.run(own, tmp_path / 'a', resume=True)
  assert again == 'complete' and not list(folder.iterdir())

  plain = simulate.run(config(layout='all', devices=1, clients=17))
  rows = records.read_metrics(tmp_path / 'a' / 'metrics.jsonl')
  for left, right in zip(plain.history, rows, strict=True):
    left = records.clean({k: v for k, v in left.items() if v is not None})
    for name in ('f1', 'sim_seconds', 'joules', 'up_bytes', 'loss'):
      if name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=1e-5)


def test_a_run_stored_before_layouts_were_goes_on():
  own = records.clean(config(layout='one'))
  assert not identity.difference(
    config(layout='one@1'), own | {'layout': 'auto'}
  )
  # Nor is it another run with a layout of another name, or other devices.
  assert not identity.difference(config(layout='all', devices=2), own)
