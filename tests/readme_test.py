"""The README's Python runs, top to bottom, as a reader would paste it."""

import pathlib
import re

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
  assert len(blocks) == 4
  space = {}
  outputs = []
  for block in blocks:
    exec(compile(block, str(README), 'exec'), space)  # our own README
    outputs.append(capsys.readouterr().out)
  assert 'round 20: F1' in outputs[0]
  assert "'node': 17, 'hub': 7" in outputs[1]
  # Chance is 1/3: a method that does not learn fails here.
  assert float(outputs[2]) > 0.6
  shares = space['simulate'].run(space['c']).history[-1]['trained_share']
  assert all(0 < share < 1 for share in shares.values())


def test_commands_exist():
  text = README.read_text()
  makefile = (README.parent / 'Makefile').read_text()
  for target in re.findall(r'^make (\w+)', text, re.M):
    assert re.search(rf'^{target}:', makefile, re.M)
  for path in re.findall(
    r'(?:experiments|relief_jax|benchmarks)/[\w/]+\.\w+', text
  ):
    assert (README.parent / path).exists(), path
