"""Callbacks: when they are called, metrics of one's own, early stopping."""

import pytest

from relief_jax import simulate
from relief_jax.callbacks import Callback, EarlyStopping, Metrics
from relief_jax.errors import InputError
from relief_jax.storage import records
from tests.support import tiny


class Log(Callback):
  """Notes what it is told."""

  def __init__(self):
    self.seen = []

  def on_start(self, run):
    self.seen.append(('start', len(run.history), run.summary['status']))

  def on_evaluation(self, run, record):
    self.seen.append((record['round'], record.get('size')))

  def on_end(self, run):
    self.seen.append(('end', run.summary['status']))


def test_callbacks_are_called_in_order(fake, tmp_path):
  log = Log()
  size = Metrics(
    lambda run: {'size': run.params['w'].size + run.history[-1]['round']}
  )
  found = simulate.run(tiny.config(), workdir=tmp_path, callbacks=[log, size])
  want = [('start', 0, 'running'), (0, 6), (2, 8), (4, 10), ('end', 'complete')]
  assert log.seen == want
  assert found.metrics['size'].tolist() == [6, 8, 10]
  stored = records.read_metrics(tmp_path / 'metrics.jsonl')
  assert [row['size'] for row in stored] == [6, 8, 10]
  log.seen.clear()
  simulate.run(
    tiny.config(rounds=6),
    workdir=tmp_path,
    resume=True,
    callbacks=[log, size],
  )
  assert log.seen == [('start', 3, 'running'), (6, 12), ('end', 'complete')]


@pytest.mark.parametrize(
  ('numbers', 'why'),
  [({'f1': 1.0}, "named 'f1'"), ({'mine': [1]}, 'a number')],
)
def test_a_metric_that_cannot_join(fake, numbers, why):
  with pytest.raises(InputError, match=why):
    simulate.run(tiny.config(), callbacks=[Metrics(lambda run: numbers)])


def falling(run):
  """A metric that is best in round 4."""
  return {'mine': 10 - abs(run.history[-1]['round'] - 4)}


def stopping(**keys):
  return [
    Metrics(falling),
    EarlyStopping('mine', **{'patience': 2, **keys}),
  ]


def test_a_run_stops_early_and_goes_on(fake, tmp_path):
  config = tiny.config(rounds=20)
  found = simulate.run(config, workdir=tmp_path, callbacks=stopping())
  summary = records.read_json(tmp_path / 'summary.json')
  assert (summary['status'], summary['round']) == ('stopped', 8)
  assert summary['stop_reason'] == 'mine no better than 10 in 2 evaluations'
  assert found.summary['status'] == 'stopped'
  again = simulate.run(
    config, workdir=tmp_path, resume=True, callbacks=stopping(patience=4)
  )
  assert again.summary['round'] == 12 and again.history[-1]['round'] == 12
  whole = simulate.run(config, workdir=tmp_path, resume=True)
  assert whole.summary['status'] == 'complete'
  assert 'stop_reason' not in whole.summary
  assert [row['round'] for row in whole.history] == list(range(0, 21, 2))
  # As if nobody had ever stopped it.
  other = simulate.run(config, workdir=tmp_path / 'whole')
  assert [r['f1'] for r in whole.history] == [r['f1'] for r in other.history]


@pytest.mark.parametrize(
  ('keys', 'stopped'),
  [
    ({}, 8),
    ({'min_delta': 1.5}, 8),  # two a step: each counts
    ({'min_delta': 2.5}, 8),  # from -4 to 0 in two steps
    ({'min_delta': 5.0}, 4),
    ({'mode': 'min'}, 4),
    ({'patience': 1, 'mode': 'min'}, 2),
    ({'patience': 3}, 10),
  ],
)
def test_when_a_run_stops(fake, keys, stopped):
  found = simulate.run(tiny.config(rounds=20), callbacks=stopping(**keys))
  assert found.summary['round'] == stopped


def test_an_interruption_does_not_move_the_stop(fake, tmp_path, monkeypatch):
  config = tiny.config(rounds=20, checkpoint_every=2)

  class Killed(Exception):
    pass

  class Kill(Callback):
    def on_evaluation(self, run, record):
      if record['round'] == 6:
        raise Killed

  with pytest.raises(Killed):
    simulate.run(config, workdir=tmp_path, callbacks=[*stopping(), Kill()])
  found = simulate.run(
    config, workdir=tmp_path, resume=True, callbacks=stopping()
  )
  assert found.summary['round'] == 8


@pytest.mark.parametrize(
  'keys', [{'mode': 'most'}, {'patience': 0}, {'min_delta': -1.0}]
)
def test_a_stop_that_means_nothing(keys):
  with pytest.raises(InputError):
    EarlyStopping('f1', **keys)


def test_a_metric_that_is_not_there(fake):
  with pytest.raises(InputError, match="no 'loose' to stop by"):
    simulate.run(tiny.config(), callbacks=[EarlyStopping('loose')])
