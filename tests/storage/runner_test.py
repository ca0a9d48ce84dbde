"""Run directories of the real simulation, alone and several at once."""

import os

import pytest

from relief_jax.storage import records, runner
from tests.support import tiny


def small(seed, lr, **keys):
  found = tiny.config(
    backbone='lora',
    layout='one',
    devices=1,
    deadline='1.5*tight',
    seed=seed,
    **{'model.base': 'random', 'synthetic.modalities': 2},
    **keys,
  )
  found.hparams.client_lr = lr
  return found


@pytest.mark.slow
def test_one_program_for_several_directories(tmp_path):
  """Seeds with worlds of their own; one is stopped half-way and goes on."""
  configs = [small(0, 0.1), small(1, 0.1), small(0, 0.2)]
  ends = {}

  def together(configs, folder):
    members = [
      runner.Member(c, tmp_path / folder / str(i))
      for i, c in enumerate(configs)
    ]
    runner.run_together(
      members, runner.Worlds(), lambda i, result: ends.update({i: result})
    )

  together(configs, 'a')
  assert ends == {0: 'complete', 1: 'complete', 2: 'complete'}
  summaries = [
    records.read_json(tmp_path / 'a' / str(i) / 'summary.json')
    for i in range(3)
  ]
  assert [s['compiles'] for s in summaries] == [1, 0, 0]
  for i, one in enumerate(configs):
    runner.run(one, tmp_path / 'alone' / str(i))
    found, alone = (
      records.read_metrics(tmp_path / kind / str(i) / 'metrics.jsonl')
      for kind in ('a', 'alone')
    )
    assert len(found) == len(alone)
    for mine, other in zip(found, alone, strict=True):
      for key in ('f1', 'sim_seconds', 'joules', 'up_bytes'):
        assert mine[key] == pytest.approx(other[key], rel=1e-5)
  # As if the first had been killed before its end: the others are not run.
  os.remove(tmp_path / 'a' / '0' / 'summary.json')
  before = (tmp_path / 'a' / '0' / 'metrics.jsonl').read_bytes()
  others = (tmp_path / 'a' / '1' / 'metrics.jsonl').stat().st_mtime_ns
  together(configs, 'a')
  assert (tmp_path / 'a' / '0' / 'metrics.jsonl').read_bytes() == before
  assert (tmp_path / 'a' / '1' / 'metrics.jsonl').stat().st_mtime_ns == others
  assert ends == {0: 'complete', 1: 'complete', 2: 'complete'}


def test_what_devices_did_is_kept(tmp_path):
  one = small(0, 0.1)
  runner.run(one, tmp_path / 'a')
  rows = records.read_metrics(tmp_path / 'a' / 'devices.jsonl')
  metrics = records.read_metrics(tmp_path / 'a' / 'metrics.jsonl')
  fleet = records.read_json(tmp_path / 'a' / 'summary.json')['fleet']
  assert [r['round'] for r in rows] == [m['round'] for m in metrics]
  assert rows[0]['last'] is None
  assert len(fleet['client']) == one.clients == len(rows[-1]['f1'])
  window = one.eval_every
  for name, share in metrics[-1]['trained_share'].items():
    trained = sum(rows[-1]['trained'][name])
    assert trained == pytest.approx(share * window * one.clients)
  last = rows[-1]['last']
  spent = [
    sum(s)
    for s in zip(
      *(last[k] for k in ('download', 'compute', 'upload')), strict=True
    )
  ]
  per_round = (metrics[-1]['sim_seconds'] - metrics[-2]['sim_seconds']) / window
  assert max(spent) == pytest.approx(per_round, rel=1e-5)
  assert sum(rows[-1]['f1']) / len(rows[-1]['f1']) == pytest.approx(
    metrics[-1]['f1']
  )
