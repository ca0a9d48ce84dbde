"""Published times of boards against what their device files predict."""

import pytest

from benchmarks import published
from relief_jax.devices import DEVICES
from relief_jax.errors import InputError


def test_predicted_is_work_over_the_boards_speed():
  row = published.Row('jetson_tx2', 'any', 'net', 2.0, 'omz', 10.0, 'tx2')
  seconds = 2e9 / DEVICES['jetson_tx2'].speed
  assert row.predicted == pytest.approx(1e3 * seconds)
  assert row.ratio == pytest.approx(1e3 * seconds / 10.0)


def test_together():
  base = published.Row('jetson_tx2', 'any', 'net', 1.0, 'omz', 1.0, 'tx2')
  rows = [
    base._replace(gflop=float(g), milliseconds=m * base.predicted)
    for g, m in ((1, 2.0), (2, 1.0), (4, 4.0))
  ]
  found = published.together(rows)  # ratios 1/2, 2 and 1
  assert found['geometric_mean'] == pytest.approx(1.0)
  assert found['largest_factor'] == pytest.approx(2.0)
  assert found['rank_correlation'] == pytest.approx(0.5)
  assert published.together(rows[:2])['rank_correlation'] is None


def test_the_table_orders_models_of_a_board_as_predicted():
  rows = published.read()
  assert len({(r.board, r.software, r.model) for r in rows}) == len(rows)
  own = [r for r in rows if r.board == 'jetson_tx2']
  for software in ('TensorFlow', 'TensorRT'):
    found = published.together([r for r in own if r.software == software])
    assert found['rank_correlation'] > 0.9


@pytest.mark.parametrize('wrong', [{'board': 'toaster'}, {'flops': 'hearsay'}])
def test_a_board_or_a_source_that_is_not_there(tmp_path, wrong):
  row = published.read()[0]._asdict() | wrong
  path = tmp_path / 'times.csv'
  path.write_text(','.join(row) + '\n' + ','.join(map(str, row.values())))
  with pytest.raises(InputError, match=next(iter(wrong.values()))):
    published.read(path)
