"""Whole runs on numbers, texts and images: right metric, right name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import image, text
from relief_jax import config, datasets, models, simulate
from relief_jax.callbacks.early_stopping import EarlyStopping
from relief_jax.errors import InputError
from relief_jax.report import gather, tables
from relief_jax.storage import fields, records, runner
from tests.support import bigram

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 4)).astype(np.float32)
Y = (X @ RNG.normal(size=(4, 2))).astype(np.float32)
CLIENT = np.arange(160) % 4


def perceptron(spec):
  """A user's perceptron on rows of a table."""
  size = spec.channels[0]

  def init(key):
    one, two = jax.random.split(key)
    return {
      'hidden': jax.random.normal(one, (size, 8)) / size**0.5,
      'out': jax.random.normal(two, (8, spec.classes)) / 8**0.5,
    }

  def apply(params, x):
    return jnp.tanh(x @ params['hidden']) @ params['out']

  return models.from_functions(init, apply, spec)


@pytest.fixture
def table(monkeypatch):
  monkeypatch.setitem(models.MODELS, 'perceptron', perceptron)

  def make(x=X, y=Y, **overrides):
    data = datasets.from_arrays(x, y, client=CLIENT)
    monkeypatch.setitem(datasets.DATASETS, 'mine', data)
    c = config.default('fedavg')
    c.dataset, c.backbone, c.devices = 'mine', 'perceptron', 1
    c.clients, c.partition, c.fleet = 4, 'subject', 'three_tiers'
    c.rounds, c.rounds_per_call, c.eval_every = 12, 6, 6
    c.data.split, c.batch = 'official', 16
    c.update_from_flattened_dict(overrides)
    return c

  return make


def test_a_regression_is_scored_by_its_error(table, tmp_path):
  c = table(target=1.0)
  assert runner.run(c, tmp_path) == 'complete'
  rows = records.read_metrics(tmp_path / 'metrics.jsonl')
  for row in rows:
    assert fields.unknown('metrics.jsonl', row) == []
    assert not [key for key in row if 'f1' in key or 'accuracy' in key]
  assert rows[-1]['rmse'] < 0.5 * rows[0]['rmse']
  summary = records.read_json(tmp_path / 'summary.json')
  assert fields.unknown('summary.json', summary) == []
  assert summary['best']['rmse'] == min(row['rmse'] for row in rows)
  reached = [row['round'] for row in rows if row['rmse'] <= 1.0]
  assert summary['rounds_to_target'] == reached[0]
  told = (tmp_path / 'columns.json').read_text()
  assert '"rmse"' in told
  for absent in ('"f1"', '"perplexity"', 'confusion'):
    assert absent not in told
  assert not (tmp_path / 'confusion.json').exists()
  found = gather.gather([tmp_path])
  shown = tables.tables_of(found)[0]
  assert 'rmse' in shown.text and 'f1 %' not in shown.text
  np.testing.assert_allclose(shown.numbers['rmse'], rows[-1]['rmse'])


def test_rmse_is_that_of_the_predictions(table):
  result = simulate.run(table())
  test = datasets.DATASETS['mine'](None, None)
  rows = np.flatnonzero(test.official_test)
  guess = result.predict({'input': test.x['input'][rows]})
  want = np.sqrt(np.square(guess - test.y[rows]).mean())
  np.testing.assert_allclose(result.history[-1]['rmse'], want, rtol=1e-5)


def test_own_arrays_of_a_changed_data_set_are_read_anew(table):
  first = simulate.run(table(rounds=1)).history[0]['rmse']
  again = simulate.run(table(y=2 * Y, rounds=1)).history[0]['rmse']
  assert abs(again - first) > 0.1


@pytest.mark.slow
def test_a_personal_regression_and_early_stopping(table):
  c = table(method='local_only', rounds=12, eval_every=1, rounds_per_call=1)
  found = simulate.run(c, callbacks=[EarlyStopping('rmse_own', 1, 1e6)])
  assert found.summary['status'] == 'stopped'
  assert found.history[-1]['rmse_own'] < found.history[0]['rmse_own']
  with pytest.raises(InputError, match='rmse_validation needs'):
    simulate.run(c, callbacks=[EarlyStopping()])


@pytest.mark.parametrize(
  'overrides, text',
  [
    ({'method': 'flism'}, 'config.method=flism for data whose targets are'),
    ({'method': 'heterofl'}, 'config.method=heterofl for data whose'),
    ({'backbone': 'lora'}, 'backbone=lora|inputs of shape'),
    ({'backbone': 'char_mlp'}, 'targets are numbers'),
    ({'partition': 'dirichlet'}, 'partition=dirichlet for data whose'),
    ({'online.stream.buffer': 4}, 'online.stream'),
  ],
)
def test_what_needs_classes_is_refused_in_a_line(table, overrides, text):
  with pytest.raises(InputError, match=text) as caught:
    simulate.Simulation(table(**overrides))
  assert '\n' not in str(caught.value)


@pytest.mark.slow
def test_a_model_of_texts_beats_counts_of_pairs(tmp_path):
  c = text.get_config('smoke')
  c.rounds, c.rounds_per_call, c.eval_every, c.devices = 40, 20, 20, 1
  c.local_steps, c.batch, c.model.hidden = 8, 16, 64
  c.data.own_share = 0.2
  c.target = 8.0
  assert runner.run(c, tmp_path) == 'complete'
  last = records.read_metrics(tmp_path / 'metrics.jsonl')[-1]
  assert fields.unknown('metrics.jsonl', last) == []
  assert not [key for key in last if 'f1' in key]
  windows, _ = datasets.load(c)
  assert last['perplexity'] < bigram.perplexity(windows)
  np.testing.assert_allclose(np.exp(last['test_loss']), last['perplexity'])
  assert 0.3 < last['token_accuracy'] < 1
  assert last['perplexity_own'] < 10
  people = records.read_json(tmp_path / 'summary.json')['world']['subjects']
  assert list(last['perplexity_by_person']) == people['test']


@pytest.mark.slow
def test_the_transformer_tells_what_texts_are_about(monkeypatch):
  """Which of two letters is there, in a text of any length and padding."""
  rng = np.random.default_rng(0)
  x = rng.integers(2, 8, (240, 9))
  y = rng.integers(0, 2, 240)
  length = rng.integers(3, 10, 240)
  x[np.arange(240), rng.integers(0, length)] = y
  x[np.arange(9) >= length[:, None]] = -1
  data = datasets.from_arrays(x, y, np.arange(240) % 4, vocabulary=8)
  monkeypatch.setitem(datasets.DATASETS, 'mine', data)
  c = config.default('fedavg')
  c.dataset, c.backbone, c.devices, c.layout = 'mine', 'transformer', 1, 'one'
  c.model.transformer.update({'d': 16, 'blocks': 1, 'heads': 2})
  c.clients, c.partition, c.fleet, c.batch = 4, 'subject', 'three_tiers', 16
  c.rounds, c.rounds_per_call, c.eval_every, c.local_steps = 20, 20, 20, 10
  c.data.split, c.client_optimizer = 'official', 'adam'
  c.hparams.client_lr = 0.01
  found = simulate.run(c)
  assert found.history[-1]['f1'] > 0.9
  model = found.model
  np.testing.assert_allclose(
    model.scores({'text': x[:1]}), model.scores({'text': x[:20]})[:1], rtol=1e-5
  )
  assert (model.predict({'text': x}) == y).mean() > 0.9
  with pytest.raises(InputError, match='tokens, ints from -1 to 7'):
    model.predict({'text': x + 1})


@pytest.mark.slow
def test_digits_are_learned():
  c = image.get_config()
  c.rounds, c.devices = 20, 1
  assert simulate.run(c).history[-1]['accuracy'] > 0.9


def test_dropped_tokens_and_labels_beyond_the_head_are_refused():
  ids = np.arange(12).reshape(3, 4)
  with pytest.raises(InputError, match='token 5 .* 0 to 4, the vocabulary'):
    datasets.from_arrays(ids, ids, classes=list('abcde'))
  with pytest.raises(InputError, match='label 3 .* a class from 0 to 2'):
    datasets.from_arrays(X[:4], np.arange(4), classes=list('abc'))
  with pytest.raises(InputError, match='where tokens are expected'):
    datasets.from_arrays(ids.astype(float), ids)
  with pytest.raises(InputError, match='NaN or infinite'):
    datasets.from_arrays(X[:4], np.array([0, 1, np.nan, 2]))


@pytest.mark.slow
def test_sensor_windows_of_numbers(table, monkeypatch):
  """The library's encoders, two sensors, devices that lack one."""
  x = {
    'acc': RNG.normal(size=(80, 16, 2)).astype(np.float32),
    'gyro': RNG.normal(size=(80, 16, 3)).astype(np.float32),
  }
  y = x['acc'].mean((1, 2)) + x['gyro'].std((1, 2))
  data = datasets.from_arrays(x, y, client=np.arange(80) % 4)
  c = table(method='relief', backbone='cnn', rounds=2, rounds_per_call=2)
  monkeypatch.setitem(datasets.DATASETS, 'mine', data)
  c.eval_every, c.model.filters, c.model.hidden = 2, (4,), 8
  last = simulate.run(c).history[-1]
  assert set(last['rmse_without']) == {'acc', 'gyro'}
  assert set(last['rmse_by_subset']) <= {'acc', 'gyro', 'acc+gyro'}
  assert last['rmse'] < 1 and 'rmse_without_rare' in last
