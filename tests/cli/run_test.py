"""The command line: every config runs, every mistake is one clear line."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.configs import (
  asynchronous,
  centralized,
  compare,
  fedavg,
  folds,
  from_json,
  image,
  mmofl,
  qqr,
  relief,
  robustness,
  study,
  text,
)
from relief_jax import algorithms, simulate
from relief_jax.cli import config_lookup
from relief_jax.errors import InputError
from relief_jax.storage import exit_codes, records, runner
from tests.support.paths import ROOT

# One file each, named after the method.
METHODS = tuple(
  importlib.import_module(f'experiments.configs.{name}')
  for name in algorithms.ALGORITHMS
)


def launch(*args, **options):
  """Starts main.py as a user does."""
  return subprocess.Popen(
    [sys.executable, '-m', 'experiments.main', *args],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )


def refused(*args):
  """The one line with which bad input is refused."""
  process = launch(*args)
  out, err = process.communicate(timeout=120)
  assert process.returncode == exit_codes.BAD_INPUT, out + err
  lines = [line for line in err.splitlines() if line.startswith('error: ')]
  assert len(lines) == 1 and 'Traceback' not in err, err
  return lines[0]


@pytest.mark.slow
@pytest.mark.parametrize(
  ('module', 'variant'),
  [
    *[(module, 'smoke') for module in METHODS],
    (relief, 'smoke,best,lora,random,full'),
    (fedavg, 'smoke,best,skip'),
    (centralized, 'smoke,best,lora'),
    (image, 'smoke'),
    (text, 'smoke'),
  ],
  ids=lambda value: getattr(value, '__name__', value),
)
def test_smoke_configs_run(module, variant, tmp_path):
  config = module.get_config(variant)
  config.devices = 1
  assert runner.run(config, tmp_path) == 'complete'
  rows = records.read_metrics(tmp_path / 'metrics.jsonl')
  assert [row['round'] for row in rows] == [0, 1, 2]
  again = from_json.get_config(str(tmp_path / 'config.json'))
  assert simulate.Simulation(again).config == again


@pytest.mark.parametrize(
  'module', [*METHODS, asynchronous, compare, folds, qqr, robustness, study]
)
def test_variants(module):
  for variant in ('smoke', 'paper', 'best', 'lora', 'best,full', ''):
    module.get_config(variant)
  with pytest.raises(InputError, match="unknown variant 'bset'"):
    module.get_config('bset')


def test_variants_of_mmofl():
  counts = {'': 4, 'dsads': 4, 'rates,dsads': 12, 'prototypes': 8, 'skew': 12}
  for variant, count in counts.items():
    assert len(mmofl.get_config(variant).labels) == count
  assert mmofl.get_config('dsads').methods['fm'].online.missing.kind == 'off'
  with pytest.raises(InputError, match="unknown variant 'dsad'"):
    mmofl.get_config('dsad')


def test_presets():
  best = relief.get_config('best,lora,random,full')
  assert (best.modality_dropout, best.fusion_norm) == (0.3, True)
  assert not best.relief.shrinkage
  assert (best.backbone, best.deadline) == ('lora', 'full')
  assert best.relief.rule == 'random'
  assert relief.get_config('best,paper') == relief.get_config()
  assert fedavg.get_config('skip').fill == 'skip'


def test_rewrite(tmp_path):
  path = str(tmp_path / 'config.json')
  with pytest.raises(InputError, match='no config file'):
    config_lookup.rewrite(['main', f'--config={path}'])
  (tmp_path / 'config.json').write_text('{}')
  for argv in (['m', f'--config={path}'], ['m', '--config', path]):
    found = config_lookup.rewrite(argv)[-1]
    assert found.endswith(f'from_json.py:{path}')
  with pytest.raises(InputError, match='relief, '):
    config_lookup.rewrite(['main', '--config=experiments/configs/releif.py'])


@pytest.mark.slow
def test_mistakes_are_one_clear_line(tmp_path):
  config = '--config=experiments/configs/relief.py:smoke'
  workdir = f'--workdir={tmp_path / "a"}'
  assert "'round'" in refused(config, workdir, '--config.round=3')
  assert 'Did you mean' in refused(config, workdir, '--config.round=3')
  assert "variant 'smok'" in refused(config[:-1], workdir)
  assert 'rounds=many' in refused(config, workdir, '--config.rounds=many')
  assert "'nope'" in refused(config, workdir, '--config.method=nope')
  assert '--workdir' in refused(config)
  (tmp_path / 'config.json').write_text('{"rouns": 3}')
  broken = f'--config={tmp_path}/config.json'
  assert "'rouns'" in refused(broken, workdir)
  assert not (tmp_path / 'a').exists()


@pytest.mark.slow
def test_sigterm_saves_and_the_run_goes_on(tmp_path):
  args = (
    '--config=experiments/configs/relief.py:smoke',
    '--config.rounds=40',
    '--config.devices=1',
  )
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  process = launch(*args, f'--workdir={whole}')
  out, err = process.communicate(timeout=400)
  assert process.returncode == 0, out + err

  process = launch(*args, f'--workdir={cut}')
  metrics, end = cut / 'metrics.jsonl', time.monotonic() + 400
  while not metrics.exists() or len(metrics.read_bytes().splitlines()) < 3:
    assert time.monotonic() < end and process.poll() is None
    time.sleep(0.01)
  os.kill(process.pid, signal.SIGTERM)
  out, err = process.communicate(timeout=120)
  assert process.returncode == exit_codes.INTERRUPTED, out + err
  summary = records.read_json(cut / 'summary.json')
  assert summary['status'] == 'interrupted' and summary['round'] < 40

  error = refused(*args, f'--workdir={cut}')
  assert '--resume' in error
  process = launch(*args, f'--workdir={cut}', '--resume')
  out, err = process.communicate(timeout=400)
  assert process.returncode == 0, out + err
  assert timeless(whole / 'metrics.jsonl') == timeless(metrics)


def timeless(path):
  """Lines without the wall clock, still byte for byte."""
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  for row in rows:
    del row['wall_seconds']
  return [json.dumps(row) for row in rows]
