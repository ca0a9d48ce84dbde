"""A finished run that is given more rounds is the longer run, to the bit."""

import numpy as np
import pytest

import relief_jax
from relief_jax import simulate
from relief_jax.errors import InputError
from relief_jax.storage import records
from relief_jax.tree import named_leaves
from tests.support import tiny


def rows(folder):
  """The evaluations but for the machine's own time."""
  found = records.read_metrics(folder / 'metrics.jsonl')
  return [{k: v for k, v in r.items() if k != 'wall_seconds'} for r in found]


@pytest.mark.invariant(2)
@pytest.mark.parametrize(
  'method', ['relief', pytest.param('fedavg', marks=pytest.mark.slow)]
)
def test_two_rounds_and_two_are_four(tmp_path, method):
  two = tiny.config(method=method, rounds=2)
  four = tiny.config(method=method, rounds=4)
  whole = simulate.run(four, workdir=tmp_path / 'whole')
  simulate.run(two, workdir=tmp_path / 'grown')
  grown = simulate.run(four, workdir=tmp_path / 'grown', resume=True)
  assert rows(tmp_path / 'grown') == rows(tmp_path / 'whole')
  assert [row['round'] for row in rows(tmp_path / 'grown')] == [0, 2, 4]
  own, other = (
    (tmp_path / name / 'devices.jsonl').read_text()
    for name in ('grown', 'whole')
  )
  assert own == other
  want = named_leaves(whole.params)
  # Of the call, and as its directory has it.
  for found in (grown, relief_jax.load(tmp_path / 'grown')):
    assert found.model.round == found.summary['round'] == 4
    leaves = named_leaves(found.params)
    assert leaves.keys() == want.keys()
    for name, leaf in leaves.items():
      np.testing.assert_array_equal(leaf, want[name], name)


@pytest.mark.slow
def test_a_fade_over_the_run_cannot_grow(tmp_path, request):
  request.getfixturevalue('fake')  # the run that there is took no time
  simulate.run(tiny.config(method='depthfl', rounds=2), workdir=tmp_path)
  request.getfixturevalue('monkeypatch').undo()
  before = rows(tmp_path)
  with pytest.raises(InputError, match='method=depthfl plans over all rounds'):
    simulate.run(
      tiny.config(method='depthfl', rounds=4), workdir=tmp_path, resume=True
    )
  assert rows(tmp_path) == before
  summary = records.read_json(tmp_path / 'summary.json')
  assert (summary['status'], summary['rounds']) == ('complete', 2)


@pytest.mark.slow
def test_without_a_fade_it_can():
  own = tiny.config(method='depthfl', **{'depthfl.fade': 0.0})
  assert not simulate.Simulation(own).plans()


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 2])
def test_what_plans_over_all_rounds_is_found_on_any_devices(devices):
  own = tiny.config(method='relief', devices=devices)
  assert not simulate.Simulation(own).plans()
  own.deadline, own.deadline_end = 'tight', 'full'
  assert simulate.Simulation(own).plans()
