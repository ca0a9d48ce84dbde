"""Trackers: what they send, and the real packages offline where installed."""

import sys
from types import SimpleNamespace

import pytest

from relief_jax import simulate
from relief_jax.callbacks import MLflow, WandB
from relief_jax.errors import InputError
from tests.support import tiny


class Recorder:
  """Notes the name and the arguments of every call."""

  def __init__(self, **returns):
    self.calls, self._returns = [], returns

  def __getattr__(self, name):
    def call(*args, **keys):
      self.calls.append((name, args, keys))
      return self._returns.get(name)

    return call

  def of(self, name):
    return [(args, keys) for found, args, keys in self.calls if found == name]


@pytest.mark.parametrize(
  ('name', 'tracker'), [('wandb', WandB), ('mlflow', MLflow)]
)
def test_a_missing_package_is_named(monkeypatch, name, tracker):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(InputError, match=rf"pip install 'relief_jax\[{name}\]'"):
    tracker('mine')


@pytest.mark.parametrize(
  ('lr', 'status'), [(0.1, 'complete'), (1e3, 'diverged')]
)
def test_what_wandb_is_sent(fake, monkeypatch, lr, status):
  run = Recorder()
  run.summary = summary = {}
  wandb = Recorder(init=run)
  monkeypatch.setitem(sys.modules, 'wandb', wandb)
  config = tiny.config(**{'hparams.client_lr': lr})
  try:
    simulate.run(config, callbacks=[WandB('mine', mode='offline')])
  except simulate.Diverged:
    assert status == 'diverged'
  [(_, begun)] = wandb.of('init')
  assert (begun['project'], begun['mode']) == ('mine', 'offline')
  assert begun['config']['hparams.client_lr'] == lr
  steps = [keys['step'] for _, keys in run.of('log')]
  assert steps == ([0, 2, 4] if status == 'complete' else [0])
  sent = run.of('log')[0][0][0]
  assert sent['f1'] == 0.0 and sent['f1_by_tier/low'] == 0.0
  assert all(isinstance(v, int | float) for v in sent.values())
  assert summary['status'] == status
  assert ('reason' in summary) == (status == 'diverged')
  assert run.of('finish') == [((), {'exit_code': int(status == 'diverged')})]


def test_what_mlflow_is_sent(fake, monkeypatch):
  client = Recorder(
    create_experiment='7',
    create_run=SimpleNamespace(info=SimpleNamespace(run_id='r')),
  )
  entities = SimpleNamespace(
    Param=lambda key, value: (key, value),
    Metric=lambda key, value, time, step: (key, value, step),
  )
  module = SimpleNamespace(MlflowClient=lambda uri: client, entities=entities)
  monkeypatch.setitem(sys.modules, 'mlflow', module)
  simulate.run(tiny.config(), callbacks=[MLflow('mine', run_name='one')])
  assert client.of('create_run') == [(('7',), {'run_name': 'one'})]
  batches = [keys for _, keys in client.of('log_batch')]
  params = dict(p for keys in batches for p in keys.get('params', ()))
  assert params['method'] == 'relief' and params['hparams.client_lr'] == '0.05'
  metrics = [m for keys in batches for m in keys.get('metrics', ())]
  assert [step for key, _, step in metrics if key == 'f1'] == [0, 2, 4]
  assert (('r', 'status', 'complete'), {}) in client.of('set_tag')
  assert client.of('set_terminated') == [(('r', 'FINISHED'), {})]


def test_wandb_itself_offline(fake, tmp_path):
  pytest.importorskip('wandb')
  tracker = WandB('mine', mode='offline', dir=str(tmp_path))
  simulate.run(tiny.config(), callbacks=[tracker])
  [found] = (tmp_path / 'wandb').glob('offline-run-*/*.wandb')
  assert found.stat().st_size


def test_mlflow_itself(fake, tmp_path):
  mlflow = pytest.importorskip('mlflow')
  pytest.importorskip('sqlalchemy')
  store = f'sqlite:///{tmp_path}/store.db'
  simulate.run(tiny.config(), callbacks=[MLflow('mine', store)])
  client = mlflow.MlflowClient(store)
  number = client.get_experiment_by_name('mine').experiment_id
  [run] = client.search_runs([number])
  assert run.info.status == 'FINISHED' and run.data.params['method'] == 'relief'
  assert len(run.data.params) > 100  # more than a store takes at once
  steps = [m.step for m in client.get_metric_history(run.info.run_id, 'f1')]
  assert steps == [0, 2, 4]
