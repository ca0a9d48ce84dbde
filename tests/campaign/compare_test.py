"""Comparisons: what is run, what is not run again, what comes out."""

import csv
import json
import os
import subprocess
import sys

import pytest

from experiments.configs import compare as compare_config
from experiments.configs import study
from relief_jax.campaign import campaign, comparison, pool
from relief_jax.errors import InputError
from relief_jax.report import gather, stats, tables
from relief_jax.storage import job_spec, records
from tests.support.campaigns import compare
from tests.support.paths import ROOT


def config(**keys):
  found = compare_config.get_config('smoke')
  found.rounds, found.eval_every, found.rounds_per_call = 10, 5, 5
  found.update(keys)
  return found


def test_expand_sets_the_keys_of_every_label(tmp_path):
  jobs = campaign.of_comparison(config(only='fedavg*,relief'), tmp_path).jobs
  assert [(j.label, j.seed) for j in jobs] == [
    ('fedavg', 0),
    ('fedavg', 1),
    ('fedavg_skip', 0),
    ('fedavg_skip', 1),
    ('relief', 0),
    ('relief', 1),
  ]
  assert jobs[2].config['fill'] == 'skip'
  assert jobs[5].config['method'] == 'relief'
  assert jobs[5].config['seed'] == 1
  assert jobs[5].workdir == str(tmp_path / 'relief' / 'seed_1')


def test_expand_refuses(tmp_path):
  with pytest.raises(InputError, match="only='nothing'"):
    campaign.of_comparison(config(only='nothing'), tmp_path)
  bad = config()
  with bad.unlocked():
    bad.methods = {'fedavg': {'metod': 'fedavg'}}
    bad.labels = ('fedavg',)
  with pytest.raises(InputError, match="'metod'"):
    campaign.of_comparison(bad, tmp_path)
  from experiments.configs import relief

  with pytest.raises(InputError, match='a comparison'):
    campaign.of_comparison(relief.get_config(), tmp_path)


def test_one_rule_for_the_baseline(tmp_path):
  def of(**keys):
    return campaign.of_comparison(config(**keys), tmp_path).baseline

  assert of() == 'fedavg'
  assert of(baseline='relief') == 'relief'
  assert of(only='relief*') == 'relief'  # fedavg is left out: the first one
  with pytest.raises(InputError, match="baseline='relif'"):
    of(baseline='relif')
  with pytest.raises(InputError, match='--baseline=relif'):
    campaign.of_comparison(config(), tmp_path, baseline='relif')
  from experiments.configs import transformer

  grouped = transformer.get_config('smoke')  # full/fedavg, lora/fedavg, ...
  grouped.baseline = 'full/fedavg'
  with pytest.raises(InputError, match=r'as fedavg, cohort_mean, relief\.'):
    campaign.of_comparison(grouped, tmp_path)


def test_finished_runs_are_never_run_again(inline, tmp_path):
  few = config(only='fedavg,relief')
  assert compare(few, tmp_path) == 0
  assert len(inline) == 4
  inline.clear()
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('metrics.jsonl')}
  assert compare(few, tmp_path) == 0
  assert not inline
  for path, time in before.items():
    assert path.stat().st_mtime_ns == time
  more = config(only=few.only, seeds=(0, 1, 2))
  assert compare(more, tmp_path) == 0
  assert {seed for _, seed in inline} == {2}


def test_labels_that_were_run_before_stay_in_the_tables(inline, tmp_path):
  def labels():
    with open(tmp_path / 'table.csv') as file:
      return {row['label'] for row in csv.DictReader(file)}

  compare(config(only='fedavg', seeds=(0,)), tmp_path)
  compare(config(only='relief', seeds=(0,)), tmp_path)
  assert inline == [('fedavg', 0), ('relief', 0)]
  assert labels() == {'fedavg', 'relief'}
  again = gather.gather([tmp_path])
  # In the order of the comparison, not as they were started.
  assert list(again.rank) == ['fedavg', 'relief']
  assert again.baseline == 'fedavg'
  # One that was stopped half-way is told, and not run.
  os.remove(tmp_path / 'fedavg' / 'seed_0' / 'summary.json')
  compare(config(only='relief', seeds=(0,)), tmp_path)
  assert len(inline) == 2 and labels() == {'relief'}
  assert gather.gather([tmp_path]).unfinished == {
    'fedavg seed_0': 'interrupted'
  }
  # Runs of other keys are not of this comparison.
  compare(config(only='fedavg_skip', seeds=(0,), local_steps=7), tmp_path)
  assert labels() == {'fedavg_skip'}
  assert gather.gather([tmp_path]).baseline == 'fedavg_skip'


def test_half_finished_runs_go_on(inline, tmp_path):
  few = config(only='fedavg,relief', seeds=(0,))
  compare(few, tmp_path)
  run = tmp_path / 'relief' / 'seed_0'
  whole = (run / 'metrics.jsonl').read_bytes()
  os.remove(run / 'summary.json')
  with open(run / 'metrics.jsonl', 'ab') as file:
    file.write(b'{"rou')
  inline.clear()
  compare(few, tmp_path)
  assert inline == [('relief', 0)]
  assert (run / 'metrics.jsonl').read_bytes() == whole


def test_runs_of_another_config_are_refused(inline, tmp_path):
  one = {'only': 'relief', 'seeds': (0,)}
  compare(config(**one), tmp_path)
  with pytest.raises(InputError, match='config.local_steps=7'):
    compare(config(local_steps=7, **one), tmp_path)


def test_failed_runs_are_listed_and_stop_nobody(inline, tmp_path, capsys):
  bad = config()
  with bad.unlocked():
    bad.methods = {
      'fedavg': {'method': 'fedavg'},
      'wild': {'hparams': {'client_lr': 1e3}},
      'wrong': {'fleet': 'nowhere.csv'},
      'relief': {'method': 'relief'},
    }
    bad.labels = tuple(bad.methods)
  assert compare(bad, tmp_path) == 1
  shown = capsys.readouterr().out
  assert 'failed: wild seed 0' in shown
  assert 'wrong seed 1: failed: Found nowhere.csv' in shown
  table = (tmp_path / 'table.md').read_text()
  assert '| relief |' in table and '| wild |' not in table


def test_a_value_that_no_run_can_use_is_refused_at_the_door(inline, tmp_path):
  bad = config()
  with bad.unlocked():
    bad.methods = {'wrong': {'clients': 0}}
    bad.labels = ('wrong',)
  with pytest.raises(InputError, match='config.clients is 0'):
    compare(bad, tmp_path)
  bad = config()
  bad.seeds = (0, -1)
  with pytest.raises(InputError, match='config.seeds is .*from 0'):
    compare(bad, tmp_path)
  assert not list(tmp_path.iterdir())


def test_tables_and_figures(inline, tmp_path):
  compare(config(only='fedavg,relief'), tmp_path)
  with open(tmp_path / 'table.csv', newline='') as file:
    rows = {row['label']: row for row in csv.DictReader(file)}
  assert list(rows) == ['fedavg', 'relief']
  assert float(rows['fedavg']['f1_difference']) == 0
  assert float(rows['relief']['speed_up']) == 1
  assert rows['relief']['f1_rare_only'] == ''
  assert rows['relief']['seeds'] == '2'
  for name in ('f1_rounds.png', 'f1_time.png'):
    content = (tmp_path / 'figures' / name).read_bytes()
    assert content.startswith(b'\x89PNG')


def test_difference_is_paired_by_seed():
  def run(label, seed, f1):
    return gather.Run(label, seed, 0, {}, [{'round': 0, 'f1': f1}])

  runs = [run('fedavg', s, 0.1 * s) for s in range(3)]
  runs += [run('relief', s, 0.1 * s + 0.05) for s in (2, 0)]
  cells = tables.cells_of(gather.Collection(runs, 'fedavg'))
  found = cells['relief']['f1_difference']
  assert found.mean == pytest.approx(0.05)
  assert found.half == pytest.approx(0, abs=1e-9)
  assert found.number == 2


def test_interval_equals_a_known_value():
  mean, half = stats.interval([4.0, 5.0, 9.0])
  assert mean == pytest.approx(6)
  assert half == pytest.approx(4.302653 * 2.645751 / 3**0.5, rel=1e-5)


def test_the_comparison_can_be_loaded_again(tmp_path):
  first = config(only='relief*')
  records.write_json(tmp_path / 'config.json', first)
  again = comparison.from_dict(records.read_json(tmp_path / 'config.json'))
  one, other = (campaign.of_comparison(c, tmp_path) for c in (again, first))
  assert one.jobs == other.jobs and one.baseline == other.baseline


@pytest.mark.slow
def test_study_leaves_out_what_does_not_depend_on_the_deadline(tmp_path):
  jobs = campaign.of_comparison(study.get_config(), tmp_path).jobs
  labels = {job.label for job in jobs}
  assert len(labels) == 4 * len(study.PLAIN) + len(study.ABLATIONS)
  assert 'cnn/paper/relief_tight' in labels
  assert 'lora/best/fedavg' in labels
  deadlines = {job.config['deadline'] for job in jobs if 'fed' in job.label}
  assert len(deadlines) == 1
  main = campaign.of_comparison(study.get_config('subjects12'), tmp_path).jobs
  assert {job.label.split('/')[2] for job in main} == {
    'fedavg',
    'fedavg_skip',
    'cohort_mean',
    'relief_tight',
    'relief_full',
  }
  assert main[0].config['data']['test_subjects'] == [1, 2]
  configs = {json.dumps(job.config, sort_keys=True) for job in jobs}
  assert len(configs) == len(jobs)


# A worker in plain Python: the run of seed 1 kills it.
WORKER = """
import json, os, sys
bundle, log = sys.argv[1:]
def tell(**message):
  with open(log, 'a') as file:
    file.write(json.dumps(message) + chr(10))
tell(event='ready', job=-1)
for i, job in enumerate(json.load(open(bundle))['jobs']):
  try:
    open(f'{bundle[:-5]}.{i}', 'x').close()
  except FileExistsError:
    continue
  tell(event='take', job=-1, jobs=[i])
  if job['seed'] == 1:
    os._exit(9)
  tell(event='end', job=i, status='complete')
"""


def crew_of(monkeypatch, folder, code, seeds):
  """A pool whose workers are this program, and what it told."""
  start = subprocess.Popen

  def popen(command, **options):
    return start([sys.executable, '-c', code, *command[4:]], **options)

  monkeypatch.setattr(pool.subprocess, 'Popen', popen)
  jobs = [job_spec.Job('a', seed, f'{folder}/{seed}', {}) for seed in seeds]
  ends = {}

  def event(job, message):
    if message['event'] == 'end':
      assert job.seed not in ends
      ends[job.seed] = message['status'], message.get('reason', '')

  crew = pool.Pool(jobs, 1, folder)
  crew.run(event)
  return crew, ends


def test_a_dead_worker_is_a_failed_run(tmp_path, monkeypatch):
  """And another one goes on with the rest."""
  crew, ends = crew_of(monkeypatch, tmp_path, WORKER, (1, 0, 2))
  assert {seed: status for seed, (status, _) in ends.items()} == {
    1: 'failed',
    0: 'complete',
    2: 'complete',
  }
  assert 'code 9' in ends[1][1] and str(tmp_path) in ends[1][1]
  assert not crew.stopped and crew.spent.working >= 0


def test_workers_that_cannot_start_are_not_tried_for_ever(
  tmp_path, monkeypatch
):
  _, ends = crew_of(monkeypatch, tmp_path, 'import sys; sys.exit(9)', (0, 1))
  assert [status for status, _ in ends.values()] == ['failed'] * 2
  assert 'code 9' in ends[0][1]


@pytest.mark.slow
def test_real_workers(tmp_path):
  command = [
    sys.executable,
    '-m',
    'experiments.compare',
    '--config=experiments/configs/compare.py:smoke',
    '--config.only=fedavg,relief',
    '--config.seeds=(0,)',
    f'--workdir={tmp_path}',
    '--workers=2',
  ]
  for _ in range(2):
    done = subprocess.run(
      command, cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
  assert '2 runs, 2 of them done' in done.stdout
  for label in ('fedavg', 'relief'):
    folder = tmp_path / label / 'seed_0'
    assert records.read_json(folder / 'summary.json')['status'] == 'complete'
