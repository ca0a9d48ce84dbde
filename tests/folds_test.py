"""A sweep over folds: everybody is tested on once, and one mean at the end."""

import csv
import json
import pathlib
import subprocess
import sys

import pytest

from experiments import compare, records
from experiments.configs import folds, from_json

ROOT = pathlib.Path(__file__).parent.parent


def test_every_fold_is_a_run(tmp_path):
  jobs = compare.expand(folds.get_config(), tmp_path)
  assert len(jobs) == 8 * len(folds.METHODS)
  assert [job.config['data']['fold'] for job in jobs[:8]] == list(range(8))
  assert {job.config['data']['split'] for job in jobs} == {'folds'}
  assert {job.config['seed'] for job in jobs} == {0}
  assert jobs[7].workdir == str(tmp_path / 'fedavg' / 'fold_7')
  few = folds.get_config('central')
  few.data.folds, few.seed = 4, 3
  jobs = compare.expand(few, tmp_path)
  assert [(job.label, job.seed) for job in jobs] == [
    ('centralized', fold) for fold in range(4)
  ]
  assert {job.config['seed'] for job in jobs} == {3}
  few.seeds = (2,)
  assert [job.seed for job in compare.expand(few, tmp_path)] == [2]
  records.write_json(tmp_path / 'config.json', few)
  again = from_json.get_config(str(tmp_path / 'config.json'))
  assert compare.expand(again, tmp_path) == compare.expand(few, tmp_path)


def test_a_comparison_of_before_folds_is_over_seeds(tmp_path):
  values = records.clean(folds.get_config())
  del values['vary']
  values['seeds'] = [0, 1]
  (tmp_path / 'config.json').write_text(json.dumps(values))
  old = from_json.get_config(str(tmp_path / 'config.json'))
  jobs = compare.expand(old, tmp_path)
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
    scores.append(100 * summary['last']['f1'])
  assert tested == [[1, 3], [2, 4]]
  with open(tmp_path / 'table.csv', newline='') as file:
    (row,) = csv.DictReader(file)
  assert row['folds'] == '2'
  assert float(row['f1']) == pytest.approx(sum(scores) / 2)
