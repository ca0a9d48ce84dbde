"""The page on runs from Python does what it says, at smallest shapes."""

import re

import pytest

from relief_jax import config as config_lib
from relief_jax import simulate
from tests.support import tiny
from tests.support.paths import ROOT

PAGE = ROOT / 'docs' / 'python.md'


@pytest.mark.slow
def test_the_page_runs(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  # Its c.clients and c.rounds, in the smallest world.
  small = tiny.config()
  small.rounds_per_call = small.eval_every = 10
  monkeypatch.setattr(config_lib, 'default', lambda: small)
  text = PAGE.read_text()
  blocks = re.findall(r'```python\n(.*?)```', text, re.S)
  assert len(blocks) == 7
  space = {}
  for block in blocks:
    exec(compile(block, str(PAGE), 'exec'), space)  # our own page
  run, stopped = space['run'], space['stopped']
  assert run.history[-1]['round'] == 40
  assert isinstance(run, simulate.Result)
  assert stopped.summary['status'] in ('complete', 'stopped')
  assert set(space['frame']['run']) == {'relief'}
  assert space['model'].predict(space['x']).tolist() == (
    run.predict(space['x']).tolist()
  )
  assert 'complete' in capsys.readouterr().out
