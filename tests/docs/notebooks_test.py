"""The notebooks run from top to bottom, and show what they say."""

import json
import pathlib

import jax
import matplotlib
import pytest

from relief_jax import algorithms, datasets, models
from tests.support.paths import ROOT

FOLDER = ROOT / 'examples'
NAMES = ('world', 'method', 'own_model', 'updates', 'sweeps', 'report')


def run(name: str) -> dict:
  """Runs the cells of a notebook; gives its variables."""
  cells = json.loads((FOLDER / f'{name}.ipynb').read_text())['cells']
  code = [''.join(c['source']) for c in cells if c['cell_type'] == 'code']
  space: dict = {}
  with jax.numpy_rank_promotion('allow'):  # as a user has it
    for number, source in enumerate(code):
      exec(compile(source, f'{name}, cell {number}', 'exec'), space)  # our own
  return space


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
  matplotlib.use('agg')
  # What a notebook registers is taken out afterwards.
  known = algorithms.ALGORITHMS, datasets.DATASETS, models.MODELS
  before = [dict(table) for table in known]
  yield
  for table, kept in zip(known, before, strict=True):
    table.clear()
    table.update(kept)


def test_these_are_all():
  found = {path.stem for path in FOLDER.glob('*.ipynb')}
  assert found == set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_no_outputs_are_stored(name):
  cells = json.loads((FOLDER / f'{name}.ipynb').read_text())['cells']
  for cell in cells:
    assert not cell.get('outputs') and not cell.get('execution_count')
  assert cells[0]['cell_type'] == 'markdown'


@pytest.mark.slow
def test_a_world(capsys):
  run('world')
  out = capsys.readouterr().out
  # 7 of 24 devices own the rare sensor: the others' zeros dilute its mean.
  assert 'encoder/mag    the mean over everybody moves 29%' in out


@pytest.mark.slow
def test_a_method():
  space = run('method')
  last = {m: r.metrics.iloc[-1] for m, r in space['results'].items()}
  assert all(r['f1'] > 0.4 for r in last.values())  # chance is 1/8
  for cost in ('sim_seconds', 'joules', 'up_bytes'):
    assert last['relief'][cost] < 0.8 * last['fedavg'][cost]
  shares = space['last'].filter(like='trained_share')
  assert shares.max() < 1 and shares.min() > 0


@pytest.mark.slow
def test_an_own_model(capsys):
  space = run('own_model')
  out = capsys.readouterr().out
  for text in ('clients     24, of 60', '1439 targets', 'a class from 0 to 1'):
    assert text in out
  assert 'motion' in out and 'RELIEF' not in out
  table = space['table']
  assert (table.loc['f1'] > 0.5).all()  # chance is 1/3
  assert table.loc['sim_seconds', 'relief'] < table.loc['sim_seconds', 'fedavg']
  assert space['page'].exists() and "'tiers'" in out
  assert 'of each tier' in space['chart'].caption


@pytest.mark.slow
def test_a_stack_of_updates():
  space = run('updates')
  bytes_of = {name: last['up_bytes'] for name, last in space['coded'].items()}
  assert bytes_of['none'] > 5 * bytes_of['int4'] > 5 * bytes_of['top_k'] / 2
  assert space['lied']['mean']['loss'] > space['lied']['median']['loss']
  assert space['noised']['up_bytes'] < bytes_of['none'] / 2


@pytest.mark.slow
def test_runs_and_sweeps(capsys):
  space = run('sweeps')
  out = capsys.readouterr().out
  assert 'tihgt' in out and 'tight' in out
  assert 'fedavg complete F1' in out and 'relief complete F1' in out
  assert space['run'].metrics.index.tolist() == [0, 5, 10, 15]
  assert set(space['last']['config.method']) == {'fedavg', 'relief'}
  assert space['table']['f1'].between(0.1, 1).all()
  assert len(space['table']) == 4 and space['table']['f1'].nunique() > 1


@pytest.mark.slow
def test_a_report(capsys):
  space = run('report')
  out = capsys.readouterr().out
  for file in ('table.csv', 'f1_time.png', 'headline.csv'):
    assert f'\n{file}\n' in out
  assert space['curves']['run'].nunique() == 4
  up = space['curves'].groupby('label')['up_bytes'].last()
  assert up['relief'] < up['fedavg']
  assert isinstance(space['folder'], pathlib.Path)
