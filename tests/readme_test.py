"""The README's Python runs, top to bottom, as a reader would paste it."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from relief_jax import algorithms, datasets, devices, fleets

README = pathlib.Path(__file__).parent.parent / 'README.md'
REGISTRIES = (
  algorithms.ALGORITHMS,
  datasets.DATASETS,
  devices.DEVICES,
  fleets.FLEETS,
)


@pytest.fixture
def registries():
  before = [dict(r) for r in REGISTRIES]
  yield
  for registry, old in zip(REGISTRIES, before, strict=True):
    registry.clear()
    registry.update(old)


@pytest.mark.slow
def test_python_blocks(registries, capsys):
  blocks = re.findall(r'```python\n(.*?)```', README.read_text(), re.S)
  assert len(blocks) == 5
  space = {}
  outputs = []
  for block in blocks:
    exec(compile(block, str(README), 'exec'), space)  # our own README
    outputs.append(capsys.readouterr().out)
  assert 'round 20: F1' in outputs[0]
  swept = re.findall(r"^0 {'client_lr': (.*)} (.*)$", outputs[1], re.M)
  assert [float(lr) for lr, _ in swept] == [0.02, 0.1]
  assert all(float(f1) > 0.3 for _, f1 in swept)  # chance is 1/8
  assert "'node': 17, 'hub': 7" in outputs[2]
  # Chance is 1/3: a method that does not learn fails here.
  assert float(outputs[3]) > 0.6
  shares = space['simulate'].run(space['c']).history[-1]['trained_share']
  assert all(0 < share < 1 for share in shares.values())


@pytest.mark.slow
def test_the_walk_through_with_a_file_of_ones_own(tmp_path):
  """The section's shell commands, as they stand there, in an empty folder."""
  text = README.read_text()
  start = text.index('\n## Your own data\n')
  (block,) = re.findall(r'```\n(.*?)```', text[start:].split('\n## ')[1], re.S)
  block = block.replace('.venv/bin/python', shlex.quote(sys.executable))
  block = block.replace('=experiments/', f'={README.parent}/experiments/')
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


def test_commands_exist():
  text = README.read_text()
  makefile = (README.parent / 'Makefile').read_text()
  for target in re.findall(r'^make (\w+)', text, re.M):
    assert re.search(rf'^{target}:', makefile, re.M)
  for path in re.findall(
    r'(?:experiments|relief_jax|benchmarks)/[\w/]+\.\w+', text
  ):
    assert (README.parent / path).exists(), path
