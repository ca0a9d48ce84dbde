"""A sweep over folds: everybody is tested on once, and one mean at the end."""

import csv
import json
import subprocess
import sys

import pytest

from experiments.configs import folds, from_json, relief
from relief_jax.campaign import campaign, points
from relief_jax.errors import InputError
from relief_jax.report import frame, gather, page, stats, tables
from relief_jax.storage import records
from tests.support.campaigns import compare
from tests.support.paths import ROOT


def test_every_fold_is_a_run(tmp_path):
  jobs = campaign.of_comparison(folds.get_config(), tmp_path).jobs
  assert len(jobs) == 8 * len(folds.METHODS)
  assert [job.config['data']['fold'] for job in jobs[:8]] == list(range(8))
  assert {job.config['data']['split'] for job in jobs} == {'folds'}
  assert {job.config['seed'] for job in jobs} == {0}
  assert jobs[7].workdir == str(tmp_path / 'fedavg' / 'fold_7')
  few = folds.get_config('central')
  few.data.folds, few.seed = 4, 3
  jobs = campaign.of_comparison(few, tmp_path).jobs
  assert [(job.label, job.seed) for job in jobs] == [
    ('centralized', fold) for fold in range(4)
  ]
  assert {job.config['seed'] for job in jobs} == {3}
  few.seeds = (2,)
  assert [job.seed for job in campaign.of_comparison(few, tmp_path).jobs] == [2]
  records.write_json(tmp_path / 'config.json', few)
  again = from_json.get_config(str(tmp_path / 'config.json'))
  one, other = (campaign.of_comparison(c, tmp_path) for c in (again, few))
  assert one.jobs == other.jobs


def test_a_comparison_of_before_folds_is_over_seeds(tmp_path):
  values = records.clean(folds.get_config())
  del values['vary']
  values['seeds'] = [0, 1]
  (tmp_path / 'config.json').write_text(json.dumps(values))
  old = from_json.get_config(str(tmp_path / 'config.json'))
  jobs = campaign.of_comparison(old, tmp_path).jobs
  assert [job.config['seed'] for job in jobs[:2]] == [0, 1]
  assert jobs[1].workdir == str(tmp_path / 'fedavg' / 'seed_1')


@pytest.mark.slow
def test_smoke(tmp_path):
  """The command of the config's docstring, in the small world."""
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'experiments.compare'),
      '--config=experiments/configs/folds.py:central,smoke',
      f'--workdir={tmp_path}',
      '--workers=1',
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert 'centralized fold 1: complete' in done.stdout
  assert 'over folds' in (tmp_path / 'table.md').read_text()
  tested, scores = [], []
  for fold in range(2):
    folder = tmp_path / 'centralized' / f'fold_{fold}'
    summary = records.read_json(folder / 'summary.json')
    tested.append(summary['world']['subjects']['test'])
    scores.append(summary['last']['f1'])
  assert tested == [[1, 3], [2, 4]]
  with open(tmp_path / 'table.csv', newline='') as file:
    (row,) = csv.DictReader(file)
  assert row['folds'] == '2'
  assert float(row['f1']) == pytest.approx(sum(scores) / 2)


@pytest.mark.parametrize('seeds', [(0, 1), (5,)])
def test_every_fold_with_several_seeds(tmp_path, seeds):
  few = folds.get_config()
  few.data.folds, few.repeats = 2, seeds
  jobs = campaign.of_comparison(few, tmp_path).jobs
  own = [job for job in jobs if job.label == 'relief']
  assert [
    (job.seed, job.config['data']['fold'], job.config['seed']) for job in own
  ] == [(fold, fold, seed) for fold in (0, 1) for seed in seeds]
  assert own[-1].workdir == str(tmp_path / f'relief/fold_1_seed_{seeds[-1]}')
  assert own[-1].values['seed'] == seeds[-1]
  records.write_json(tmp_path / 'config.json', few)
  again = from_json.get_config(str(tmp_path / 'config.json'))
  assert campaign.of_comparison(again, tmp_path).jobs == jobs
  few.vary = 'seed'
  few.seeds = (0,)
  with pytest.raises(InputError, match='repeats'):
    campaign.of_comparison(few, tmp_path)


def run(label, fold, seed, f1, persons=()):
  world = {'subjects': {'test': list(persons)}}
  metrics = [{'round': 0, 'f1': f1 / 2}, {'round': 5, 'f1': f1}]
  return gather.Run(label, seed, fold, {'world': world}, metrics)


def test_seeds_are_averaged_before_folds():
  """Against the mean and interval of two fold means, by hand."""
  f1 = {(0, 0): 0.5, (0, 1): 0.7, (1, 0): 0.8, (1, 1): 0.8}
  gain = {(0, 0): 0.1, (0, 1): 0.0, (1, 0): 0.2, (1, 1): -0.1}
  runs = [run('fedavg', *pair, value) for pair, value in f1.items()]
  runs += [run('relief', *pair, f1[pair] + more) for pair, more in gain.items()]
  collection = gather.Collection(runs, 'fedavg', 'folds')
  found = tables.cells_of(collection)
  own = found['fedavg']['f1']
  assert (own.mean, own.number, own.total) == (pytest.approx(0.7), 4, 4)
  assert own.half == pytest.approx(12.706205 * 0.1, rel=1e-5)  # t of one degree
  difference = found['relief']['f1_difference']
  assert difference.mean == pytest.approx(0.05)
  assert difference.half == pytest.approx(0, abs=1e-9)  # 5 points in each fold
  assert tables.significance(collection)['relief'] < 1e-6
  # A run that is missing is told, and its pair is left out.
  some = [r for r in runs if (r.fold, r.seed) != (0, 1)]
  cells = tables.cells_of(gather.Collection(some, 'fedavg', 'folds'))
  assert cells['relief']['f1_difference'].mean == pytest.approx(0.075)
  _, y, of_fold = frame.curves(collection.frame, 'fedavg', 'round')
  assert stats.units(y, of_fold).mean(0) == pytest.approx([0.35, 0.7])


def test_the_persons_of_each_fold_are_listed():
  runs = [
    run('fedavg', fold, seed, 0.5, (fold + 1, fold + 5))
    for fold in (1, 0)
    for seed in (0, 1)
  ]
  first, second = tables.notes_of(runs, 'folds')
  assert first == 'A fold counts once, as the mean over its 2 seeds.'
  assert second == 'Persons tested on: fold 0: 1, 5; fold 1: 2, 6.'
  assert tables.notes_of(runs, 'seeds') == []


def test_folders_of_two_axes_are_read_again(inline, tmp_path):
  """Two folds x two seeds, through a campaign, its table and its report."""
  few = folds.get_config('smoke')
  few.rounds, few.eval_every, few.rounds_per_call = 10, 5, 5
  few.repeats, few.only = (0, 1), 'fedavg,relief'
  assert compare(few, tmp_path) == 0
  with open(tmp_path / 'table.csv', newline='') as file:
    rows = {row['label']: row for row in csv.DictReader(file)}
  assert rows['relief']['folds'] == '2'
  text = (tmp_path / 'table.md').read_text()
  assert 'A fold counts once, as the mean over its 2 seeds.' in text
  for manifest in (True, False):
    if not manifest:  # found by their folders alone
      (tmp_path / 'manifest.json').unlink()
    collection = gather.gather([tmp_path])
    assert collection.numbers == 'folds'
    assert [
      (r.fold, r.seed) for r in collection.runs if r.label == 'relief'
    ] == [
      (0, 0),
      (0, 1),
      (1, 0),
      (1, 1),
    ]
  assert '2 folds' in page.render(collection, [], [])


def test_a_sweep_over_folds_and_seeds(tmp_path):
  c = relief.get_config('smoke')
  texts = {'data.fold': '0:2', 'seed': '0:2', 'hparams.ema': '.1,.9'}
  found = points.expand([], points.swept(c, texts))
  jobs = campaign.of_sweep(c, found, tmp_path).jobs
  assert {job.label for job in jobs} == {'ema=0.1', 'ema=0.9'}
  assert jobs[2].workdir == str(tmp_path / 'ema=0.1' / 'fold_0_seed_1')
