"""Every field that a run writes has a unit and a meaning."""

import pytest

from relief_jax.storage import fields, records, runner
from tests.support import tiny
from tests.support.paths import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
  'overrides',
  [
    dict(update_similarity=1, nonfinite='drop', clients_per_round=3),
    pytest.param(dict(method='local_only'), marks=pytest.mark.slow),
  ],
)
def test_columns_json_describes_what_a_run_writes(tmp_path, overrides):
  c = tiny.config(**overrides)
  c.rounds = c.eval_every = c.rounds_per_call = 1
  assert runner.run(c, tmp_path) == 'complete'
  for file in ('metrics.jsonl', 'devices.jsonl', 'cosines.jsonl'):
    for record in records.read_metrics(tmp_path / file):
      assert fields.unknown(file, record) == [], file
  last = records.read_metrics(tmp_path / 'metrics.jsonl')[-1]
  summary = records.read_json(tmp_path / 'summary.json')
  confusion = records.read_json(tmp_path / 'confusion.json')
  assert fields.unknown('summary.json', summary) == []
  assert fields.unknown('confusion.json', confusion) == []
  assert records.read_json(tmp_path / 'columns.json') == fields.table()
  # The confusion is the one behind the F1s, under the classes' names.
  assert list(last['f1_by_class']) == confusion['classes']
  assert confusion['classes'] == summary['world']['classes']
  true = sum(map(sum, confusion['counts']))
  devices = c.clients if c.method == 'local_only' else 1
  assert true == devices * summary['world']['windows']['test']
  assert (
    last['test_loss'] > 0 == summary['last']['test_loss'] - last['test_loss']
  )


def test_the_table_tells_what_it_lacks():
  assert fields.unknown('summary.json', {'world': {'new': 1}}) == ['world.new']
  assert fields.unknown('metrics.jsonl', {'f1': {'a': 1}}) == ['f1']


def test_the_docs_show_this_table():
  text = (ROOT / 'docs' / 'metrics.md').read_text(encoding='utf-8')
  assert fields.markdown() in text
