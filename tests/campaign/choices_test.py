"""From a sweep of a comparison to the values that another one runs with."""

import json
import os
import subprocess
import sys

import pytest

from experiments.configs import compare as compare_config
from experiments.configs import relief
from relief_jax.campaign import (
  campaign,
  choices,
  manifest,
  points,
)
from relief_jax.campaign.comparison import build, from_dict
from relief_jax.errors import InputError
from relief_jax.report import gather
from relief_jax.storage import records
from tests.support.campaigns import compare

METHODS = {
  'cnn/fedavg': {'method': 'fedavg'},
  'cnn/relief': {'method': 'relief', 'hparams': {'client_lr': 0.01}},
}
RATES = (0.02, 0.05, 0.1)


def smoke(**keys):
  found = compare_config.get_config('smoke')
  build(found, METHODS, (0, 1))
  found.update(keys)
  return found


def finish(job, score, status='complete', **fields):
  """Leaves the files of a run that ended."""
  folder = job.workdir
  os.makedirs(folder, exist_ok=True)
  with open(f'{folder}/config.json', 'w') as file:
    data = {**job.config['data'], 'validation_subjects': [3]}
    json.dump({**job.config, 'data': data}, file)
  with open(f'{folder}/summary.json', 'w') as file:
    json.dump({'status': status, 'dataset': 'synthetic'}, file)
  with open(f'{folder}/metrics.jsonl', 'w') as file:
    for i, f1 in enumerate((0.9, score - 0.1, score)):
      row = {'round': i, 'f1': 1 - f1, 'f1_validation': f1, **fields}
      file.write(json.dumps(row) + '\n')


def end(folder, config, jobs, score):
  """Leaves the files of a campaign that ended."""
  folder.mkdir(parents=True, exist_ok=True)
  records.write_json(folder / 'config.json', config)
  manifest.Manifest(
    folder / 'manifest.json', jobs, baseline='fedavg', numbers='seeds'
  ).write()
  for job in jobs:
    finish(job, score(job))


def swept(folder, score=lambda job: 0.5, texts=None):
  """A finished sweep over the rates of a comparison."""
  config = smoke()
  flags = points.swept(config, texts or {'hparams.client_lr': '.02,.05,.1'})
  jobs = campaign.of_comparison(
    config, folder, found=points.expand([], flags)
  ).jobs
  end(folder, config, jobs, score)
  return jobs


def best_at(**rates):
  """A score that is best at a rate, and differs between seeds."""

  def score(job):
    distance = abs(
      job.values['hparams.client_lr'] - rates[job.config['method']]
    )
    return 0.7 - distance + 0.1 * job.seed

  return score


def test_every_label_meets_every_value(tmp_path):
  jobs = swept(tmp_path)
  assert [(job.label, job.seed) for job in jobs][:5] == [
    ('client_lr=0.02/cnn/fedavg', 0),
    ('client_lr=0.02/cnn/fedavg', 1),
    ('client_lr=0.02/cnn/relief', 0),
    ('client_lr=0.02/cnn/relief', 1),
    ('client_lr=0.05/cnn/fedavg', 0),
  ]
  assert jobs[3].workdir == str(tmp_path / 'client_lr=0.02/cnn/relief/seed_1')
  rates = [job.config['hparams']['client_lr'] for job in jobs]
  assert rates == sorted([*RATES] * 4)  # after the label's own 0.01
  assert jobs[3].values['method'] == 'relief' and jobs[3].values['seed'] == 1
  # Labels of a point are compared with its own baseline.
  assert campaign.choose_baseline(jobs, 'fedavg') == 'fedavg'
  assert len(gather.gather([tmp_path]).runs) == 12


@pytest.mark.parametrize('key', ['seed', 'method'])
def test_what_labels_and_seeds_set_is_not_swept(tmp_path, key):
  with pytest.raises(InputError, match=f'{key} swept over a comparison'):
    campaign.of_comparison(smoke(), tmp_path, found=[{key: 1}])


def test_the_best_values_of_every_label(tmp_path):
  swept(tmp_path, best_at(fedavg=0.05, relief=0.1))
  found = choices.choose(tmp_path, 'f1_validation')
  fedavg, relief_ = (found['labels'][f'cnn/{m}'] for m in ('fedavg', 'relief'))
  assert fedavg['values'] == {'hparams.client_lr': 0.05}
  assert relief_['values'] == {'hparams.client_lr': 0.1}
  assert fedavg['score'] == pytest.approx(0.75)
  assert [c['score'] for c in fedavg['candidates']] == pytest.approx(
    [0.72, 0.75, 0.7]
  )
  assert {c['runs'] for c in fedavg['candidates']} == {2}
  assert (found['by'], found['runs']) == ('f1_validation', 12)
  assert found['validation_subjects'] == [3] and not found['test_score']
  averaged = choices.choose(tmp_path, 'f1_validation', last=2)
  assert averaged['labels']['cnn/fedavg']['score'] == pytest.approx(0.7)


def test_a_score_that_is_no_number_is_never_the_best(tmp_path):
  """A run may end with a perplexity of exp(1000), which is null in files."""
  jobs = swept(tmp_path, best_at(fedavg=0.05, relief=0.1))
  path = f'{jobs[4].workdir}/metrics.jsonl'
  assert jobs[4].label == 'client_lr=0.05/cnn/fedavg'
  with open(path) as file:
    rows = [json.loads(line) for line in file]
  rows[-1]['f1_validation'] = None
  with open(path, 'w') as file:
    file.writelines(json.dumps(row) + '\n' for row in rows)
  found = choices.choose(tmp_path, 'f1_validation')['labels']['cnn/fedavg']
  assert found['values'] == {'hparams.client_lr': 0.02}
  assert [c['diverged'] for c in found['candidates']] == [0, 1, 0]


def test_a_sweep_of_one_config_is_by_method(tmp_path):
  config = relief.get_config('smoke')
  texts = {'hparams.ema': '.1,.9', 'seed': '0:2', 'method': 'relief,fedavg'}
  found = points.expand([], points.swept(config, texts))
  jobs = campaign.of_sweep(config, found, tmp_path).jobs
  end(tmp_path, config, jobs, lambda job: job.values['hparams.ema'] / 2)
  found = choices.choose(tmp_path, 'f1_validation')['labels']
  assert {label: one['values'] for label, one in found.items()} == {
    'relief': {'hparams.ema': 0.9},
    'fedavg': {'hparams.ema': 0.9},
  }


def test_of_equal_ones_the_first_is_taken(tmp_path):
  swept(tmp_path)
  one = choices.choose(tmp_path, 'f1_validation')['labels']['cnn/fedavg']
  assert one['values'] == {'hparams.client_lr': 0.02}
  assert one['tied'] == [{'hparams.client_lr': r} for r in (0.05, 0.1)]


def test_what_diverged_is_never_chosen(tmp_path):
  jobs = swept(tmp_path, best_at(fedavg=0.1, relief=0.1))
  for job in jobs:
    rate, method = job.values['hparams.client_lr'], job.config['method']
    if method == 'relief' or rate == 0.1 and job.seed:
      finish(job, 0.9, 'diverged')
  found = choices.choose(tmp_path, 'f1_validation')['labels']
  assert found['cnn/fedavg']['values'] == {'hparams.client_lr': 0.05}
  assert found['cnn/fedavg']['candidates'][2]['diverged'] == 1
  assert found['cnn/relief']['values'] is None


@pytest.mark.parametrize(
  ('by', 'message'),
  [
    ('f1', 'a test score'),
    ('f1_own', 'leak'),
    ('loss', 'a score: f1_'),
    ('f1_validated', 'a test score'),
    ('f1_validation_other', 'without f1_validation_other'),
  ],
)
def test_bad_criteria_are_refused(tmp_path, by, message):
  swept(tmp_path)
  with pytest.raises(InputError, match=message):
    choices.choose(tmp_path, by)


def test_a_test_score_is_taken_on_demand_and_told(tmp_path):
  swept(tmp_path, best_at(fedavg=0.05, relief=0.1))
  found = choices.choose(tmp_path, 'f1', allow_test=True)
  assert found['test_score']
  assert found['labels']['cnn/relief']['values'] == {'hparams.client_lr': 0.02}
  records.write_json(tmp_path / 'values.json', found)
  told = choices.note(str(tmp_path / 'values.json'), ['cnn/relief'])
  assert told.startswith('LEAK: ')


def test_an_unfinished_sweep_is_refused(tmp_path):
  jobs = swept(tmp_path)
  finish(jobs[4], 0.5, f1_validation=None)
  with pytest.raises(InputError, match='client_lr=0.05/cnn/fedavg/seed_0 with'):
    choices.choose(tmp_path, 'f1_validation')
  os.remove(f'{jobs[3].workdir}/summary.json')
  with pytest.raises(InputError, match='1 of 12 runs .* not finished'):
    choices.choose(tmp_path, 'f1_validation')
  manifest = records.read_json(tmp_path / 'manifest.json')
  (tmp_path / 'manifest.json').unlink()
  records.write_json(tmp_path / 'manifest-2of3.json', manifest)
  with pytest.raises(InputError, match='without the parts 1/3, 3/3'):
    choices.choose(tmp_path, 'f1_validation')


def test_candidates_over_unlike_seeds_are_refused(tmp_path):
  swept(tmp_path)
  manifest = records.read_json(tmp_path / 'manifest.json')
  del manifest['points'][1]
  records.write_json(tmp_path / 'manifest.json', manifest)
  with pytest.raises(InputError, match='the same seeds and folds'):
    choices.choose(tmp_path, 'f1_validation')


def test_without_a_swept_key_there_is_nothing_to_choose(tmp_path):
  swept(tmp_path, texts={'hparams.client_lr': '.02'})
  with pytest.raises(InputError, match='with one value of every key'):
    choices.choose(tmp_path, 'f1_validation')


@pytest.fixture
def values(tmp_path):
  """A file of values for one of two labels."""
  swept(tmp_path / 'tune', best_at(fedavg=0.05, relief=0.1))
  found = choices.choose(tmp_path / 'tune', 'f1_validation')
  del found['labels']['cnn/fedavg']
  records.write_json(tmp_path / 'values.json', found)
  return tmp_path / 'values.json'


def test_a_comparison_takes_the_values(values, tmp_path):
  config = smoke(values_file=str(values))
  jobs = campaign.of_comparison(config, tmp_path / 'runs').jobs
  rates = {job.label: job.config['hparams']['client_lr'] for job in jobs}
  default = smoke().hparams.client_lr
  assert rates == {'cnn/fedavg': default, 'cnn/relief': 0.1}  # not its own 0.01
  assert jobs[2].values['hparams.client_lr'] == 0.1
  told = choices.note(config.values_file, ['cnn/fedavg', 'cnn/relief'])
  assert told == (
    'Values chosen on f1_validation (persons 3) of 12 runs: client_lr=0.1 for '
    'cnn/relief. None were chosen for cnn/fedavg, which keep their own.'
  )
  records.write_json(tmp_path / 'config.json', config)
  again = from_dict(records.read_json(tmp_path / 'config.json'))
  assert campaign.of_comparison(again, tmp_path / 'runs').jobs == jobs


def test_values_that_do_not_fit_are_refused(values, tmp_path):
  found = records.read_json(values)

  def expand(content):
    records.write_json(values, content)
    campaign.of_comparison(smoke(values_file=str(values)), tmp_path)

  entry = found['labels']['cnn/relief']
  with pytest.raises(InputError, match="the label 'cnn/relif'"):
    expand({**found, 'labels': {'cnn/relif': entry}})
  wrong = {**entry, 'values': {'hparams.client_rate': 0.1}}
  with pytest.raises(InputError, match="'hparams.client_rate'"):
    expand({**found, 'labels': {'cnn/relief': wrong}})
  with pytest.raises(InputError, match='no chosen values'):
    expand({'labels': []})
  with pytest.raises(InputError, match='a file that can be read'):
    campaign.of_comparison(smoke(values_file='nowhere.json'), tmp_path)


def test_values_are_told_in_the_folder(inline, values, tmp_path, capsys):
  config = smoke(
    values_file=str(values), rounds=10, eval_every=5, rounds_per_call=5
  )
  assert compare(config, tmp_path / 'runs') == 0
  text = 'Values chosen on f1_validation (persons 3) of 12 runs: '
  assert capsys.readouterr().out.count(text) == 1
  assert text in (tmp_path / 'runs' / 'table.md').read_text()
  (note,) = gather.gather([tmp_path / 'runs']).notes
  assert note.startswith(text)


def call(*args):
  return subprocess.run(
    [sys.executable, '-m', *args], capture_output=True, text=True, timeout=300
  )


@pytest.mark.slow
def test_the_commands(tmp_path):
  swept(tmp_path / 'tune', best_at(fedavg=0.05, relief=0.1))
  out = tmp_path / 'values.json'
  done = call('experiments.select', str(tmp_path / 'tune'), f'--out={out}')
  assert done.returncode == 0, done.stderr
  assert 'cnn/relief: hparams.client_lr=0.1 (75.0 %, best of 3)' in done.stdout
  found = choices.choose(tmp_path / 'tune', 'f1_validation')
  assert records.read_json(out) == records.clean(found)
  # Of labels that this comparison does not have.
  done = call(
    'experiments.compare',
    '--config=experiments/configs/compare.py:smoke',
    f'--config.values={out}',
    f'--workdir={tmp_path / "runs"}',
  )
  assert done.returncode == 2
  assert "Found values of the label 'cnn/fedavg'" in done.stderr
  assert not (tmp_path / 'runs').exists()
  done = call(
    'experiments.sweep',
    '--config=experiments/configs/compare.py:smoke',
    '--config.only=relief',
    '--sweep.hparams.client_lr=.02,.05',
    f'--workdir={tmp_path / "runs"}',
    '--dry_run',
  )
  assert done.stdout.split('\n')[:3] == [
    'client_lr=0.02/relief seed 0',
    'client_lr=0.02/relief seed 1',
    'client_lr=0.05/relief seed 0',
  ]


def test_of_an_error_the_smallest_is_chosen(tmp_path):
  for job in swept(tmp_path):
    rate = job.values['hparams.client_lr']
    finish(job, 0.5, rmse_validation=abs(rate - 0.05))
  found = choices.choose(tmp_path, 'rmse_validation')['labels']
  assert found['cnn/fedavg']['values'] == {'hparams.client_lr': 0.05}
