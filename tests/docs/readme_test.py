"""The Python of README and docs runs, page by page, as a reader pastes it.

Blocks marked `python` run; those marked `py` show what is no more.
"""

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest

from relief_jax import algorithms, datasets, devices, models
from relief_jax.rounds import facts
from relief_jax.world import fleets
from tests.support import tiny
from tests.support.paths import ROOT

README, DOCS = ROOT / 'README.md', ROOT / 'docs'
PAGES = [README, ROOT / 'CONTRIBUTING.md', *sorted(DOCS.glob('*.md'))]
REGISTRIES = (
  algorithms.ALGORITHMS,
  datasets.DATASETS,
  devices.DEVICES,
  fleets.FLEETS,
  models.MODELS,
)


@pytest.fixture
def registries():
  before = [dict(r) for r in REGISTRIES]
  yield
  for registry, old in zip(REGISTRIES, before, strict=True):
    registry.clear()
    registry.update(old)


def blocks(page):
  return re.findall(r'```python\n(.*?)```', page.read_text(), re.S)


def methods(page):
  """The factories that a page defines."""
  space = {}
  for block in blocks(page):
    if 'simulate' not in block:  # no whole runs
      exec(compile(block, str(page), 'exec'), space)  # our own pages
  return {
    name: made
    for name, made in space.items()
    if inspect.isfunction(made)
    and made.__globals__ is space
    and list(inspect.signature(made).parameters) == ['task', 'setting']
  }


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_what_a_page_imports_is_there(page):
  for block in blocks(page):
    for node in ast.parse(block).body:
      if isinstance(node, ast.Import | ast.ImportFrom):
        exec(ast.unparse(node), {})


def test_fedavg_as_it_is_explained():
  task = tiny.task()
  population = tiny.population(task)
  setting = tiny.setting(population, 'fedavg')
  made = methods(DOCS / 'method.md')['my_fedavg']
  found, info = tiny.step(made, task, population, setting, 2)
  want, wanted = tiny.step('fedavg', task, population, setting, 2)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
    (found.params, info),
    (want.params, wanted),
  )


def test_the_method_of_the_readme_takes_a_round():
  task = tiny.task()
  population = tiny.population(task)
  setting = tiny.setting(population, 'fedavg')
  made = methods(README)['coin']
  _, info = tiny.step(made, task, population, setting)
  some, everything = info.trained.sum(), population.fleet.owned.any(1).size
  assert 0 < some < everything * task.num_blocks
  assert np.isfinite(info.loss).all()


@pytest.mark.parametrize('page', [README, DOCS / 'model.md'], ids=str)
def test_a_model_of_a_page_takes_a_round(page, monkeypatch):
  """Its encoders see spectra, which do not know where a wave begins."""
  space = {}
  for block in blocks(page):
    if 'def spectral' in block:
      exec(compile(block, str(page), 'exec'), space)  # our own pages
  monkeypatch.setitem(models.MODELS, 'spectral', space['spectral'])
  task = tiny.task('spectral')
  population = tiny.population(task)
  setting = tiny.setting(population, 'relief')
  start = task.init(jax.random.key(0))
  state, info = tiny.step('relief', task, population, setting)
  assert np.isfinite(info.loss).all()
  moved = jax.tree.map(lambda a, b: (a != b).any(), state.params, start)
  assert any(map(bool, jax.tree.leaves(moved)))
  window = population.bank.x['acc'][:2]
  seen = [task.encode(start, {}, 0, x, 0) for x in (window, window[:, ::-1])]
  np.testing.assert_allclose(*seen, rtol=0, atol=1e-5)
  plain = tiny.task().work.fwd
  assert (task.work.fwd < plain).all()


@pytest.mark.slow
@pytest.mark.parametrize('page', ['method', 'hooks_to_functions'])
def test_every_method_of_a_page_takes_a_round(page):
  task = tiny.task()
  population = tiny.population(task)
  plain = tiny.setting(population, 'fedavg')
  start = task.init(jax.random.key(0))
  made = methods(DOCS / f'{page}.md')
  assert len(made) == {'method': 5, 'hooks_to_functions': 15}[page]
  for name, factory in made.items():
    setting = plain._replace(options=facts.of(factory).make())
    state, info = tiny.step(factory, task, population, setting)
    assert np.isfinite(info.loss).all(), name
    moved = jax.tree.map(lambda a, b: (a != b).any(), state.params, start)
    assert any(map(bool, jax.tree.leaves(moved))), name


@pytest.mark.slow
def test_python_blocks(registries, capsys):
  outputs = {}
  for page in PAGES:
    # python_page_test.py runs the one in a folder of its own, and the other
    # reads a hundred runs.
    if page.stem in ('python', 'paper'):
      continue
    space = {}
    for block in blocks(page):
      exec(compile(block, str(page), 'exec'), space)  # our own pages
      outputs.setdefault(page.stem, []).append(capsys.readouterr().out)
  assert {k: len(v) for k, v in outputs.items()} == {
    'README': 3,
    'api': 1,
    'data': 2,
    'devices': 1,
    'hooks_to_functions': 16,
    'method': 6,
    'model': 4,
    'reliability': 1,
    'scaling': 1,
  }
  # The README shows what it prints: F1 to a tenth, costs to a tenth of them.
  (said,) = re.findall(r'```text\n(.*?)```', README.read_text(), re.S)
  shown = said.replace('F1', 'F'), outputs['README'][0].replace('F1', 'F')
  words = [re.sub(r'[\d.]+', '0', text).split() for text in shown]
  assert words[0] == words[1]
  numbers = [np.array(re.findall(r'[\d.]+', t), float) for t in shown]
  np.testing.assert_allclose(*numbers, rtol=0.1, atol=0.1)
  # FedAvg of the library and of the page have the same loss.
  losses = dict(map(str.split, outputs['method'][2].splitlines()))
  assert len(losses) == 2 and len(set(losses.values())) == 1
  swept = re.findall(
    r"^0 {'client_lr': (.*)} (.*)$", outputs['scaling'][0], re.M
  )
  assert [float(lr) for lr, _ in swept] == [0.02, 0.1]
  assert all(float(f1) > 0.3 for _, f1 in swept)  # chance is 1/8
  assert "'node': 17, 'hub': 7" in outputs['devices'][0]
  # Four devices in five rounds, twice, and the others go on.
  assert outputs['reliability'][0].count(' 20.0\n') == 2
  # Chance is 1/3: a method that does not learn fails here.
  spots, waves = map(float, outputs['data'])
  assert spots > 0.9 and waves > 0.6
  rmse, perplexity = map(float, outputs['model'][1:3])
  assert rmse < 0.6 and perplexity < 14  # from 1.2 and 29 of a blind guess


@pytest.mark.slow
def test_the_walk_through_with_a_file_of_ones_own(tmp_path):
  """The section's shell commands, as they stand there, in an empty folder."""
  text = (DOCS / 'data.md').read_text()
  start = text.index('\n## From a file\n')
  (block,) = re.findall(r'```\n(.*?)```', text[start:].split('\n## ')[1], re.S)
  python = shlex.quote(sys.executable)
  block = re.sub('(?m)^python ', f'{python} ', block)
  block = re.sub('(?m)^relief ', f'{python} -m relief_jax.cli.main ', block)
  done = subprocess.run(
    ['bash', '-euc', block],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(README.parent)},
    timeout=500,
  )
  out = done.stdout
  assert done.returncode == 0, out + done.stderr
  # What `check` finds in the file that the first command made.
  assert 'layout      continuous, 27000 samples' in out
  assert '  1         4500 samples (ann)' in out
  assert 'gaps' not in out and out.count('nothing wrong') == 1
  # What the run was about, and that it learnt: chance is 1/2.
  summary = json.loads((tmp_path / 'runs/mine/summary.json').read_text())
  assert summary['status'] == 'complete' and summary['dataset'] == 'npz'
  assert len(summary['world']['subjects']['test']) == 2
  assert len(summary['world']['subjects']['train']) == 4
  assert summary['last']['f1_all'] > 0.7


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_what_a_page_names_exists(page):
  text, root = page.read_text(), README.parent
  makefile = (root / 'Makefile').read_text()
  for target in re.findall(r'^make (\w+)', text, re.M):
    assert re.search(rf'^{target}:', makefile, re.M)
  for path in re.findall(
    r'(?:experiments|relief_jax|benchmarks|tests)/[\w/]+\.\w+', text
  ):
    assert 'NAME' in path or (root / path).exists(), path
