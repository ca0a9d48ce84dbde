"""What a run says before its first round, and how to go on with one."""

import pytest

from relief_jax.files import invocation
from relief_jax.runs import compile_times
from relief_jax.storage import preparing, progress


class Simulation:
  """Has something to compile the first time."""

  compiled = False

  def prepare(self):
    self.compiled = True
    return 'estimate'


class Notes(progress.Quiet):
  def __init__(self):
    self.before = []

  def compiling(self, before):
    self.before.append(before)


def test_compiling_is_said_with_the_time_it_took_before(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(compile_times, 'key', lambda *_: 'name')
  ticks = iter((1.0, 9.25, 20.0, 24.5))
  monkeypatch.setattr(preparing.time, 'perf_counter', lambda: next(ticks))
  one, notes = Simulation(), Notes()
  for _ in range(2):  # nothing is compiled, and nothing said, the second time
    assert preparing.prepare(one, None, [notes]) == 'estimate'
  assert notes.before == [None]
  preparing.prepare(Simulation(), None, [notes])
  assert notes.before == [None, 8.25]
  assert compile_times.before('name') == 4.5
  assert compile_times.before('other') is None
  (tmp_path / 'relief_jax' / compile_times.FOLDER / 'name.json').write_text('{')
  assert compile_times.before('name') is None


@pytest.mark.parametrize(
  ('argv', 'said'),
  [
    (['bin/relief run', 'relief:smoke'], 'relief run relief:smoke --resume'),
    (['relief run', 'a b.py', '--resume'], "relief run 'a b.py' --resume"),
    (['x y/relief run', '--noresume'], 'relief run --noresume --resume'),
  ],
)
def test_an_interrupted_run_says_how_to_go_on(monkeypatch, argv, said):
  monkeypatch.setattr('sys.argv', argv)
  assert invocation.resuming() == said
