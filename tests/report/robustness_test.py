"""The tables and heat maps of a robustness grid."""

import csv

import pytest

from relief_jax.errors import InputError
from relief_jax.report import gather, robustness


def run(label, seed, every, without):
  metrics = [
    {'round': 1, 'f1_all': every, 'f1_without': dict(enumerate(without))}
  ]
  return gather.Run(label, seed, 0, {}, metrics)


def made():
  found = []
  for seed in (0, 1):
    for noisy in (0, 20):
      level = 0.8 - noisy / 100 + 0.1 * seed
      for method, gain in (('fedavg', 0.0), ('relief', 0.02)):
        f1 = level + gain
        label = f'missing30_noisy{noisy}/{method}'
        found.append(run(label, seed, f1, [f1 - 0.1, f1 - 0.3]))
  return found


def test_a_grid_in_numbers_and_pictures(tmp_path):
  found = robustness.grid(made())
  gap = robustness.differences(found, 'fedavg')
  worst = gap[(gap.metric == 'worst') & (gap.method == 'relief')]
  assert list(worst.value) == pytest.approx([0.02] * 4)  # seed by seed
  robustness.write_tables(found, tmp_path)
  with open(tmp_path / 'robustness.csv') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 4
  assert float(rows[0]['complete']) == pytest.approx(0.85)
  place = [rows[3][k] for k in ('missing_percent', 'noisy_percent', 'method')]
  assert place == ['30', '20', 'relief']
  assert float(rows[3]['missing']) == pytest.approx(0.62 + 0.05 - 0.2)
  text = (tmp_path / 'robustness.md').read_text()
  assert '| 30 | 0 | fedavg | 85.0 ± ' in text
  robustness.draw(found, 'fedavg', tmp_path / 'grid.png')
  assert (tmp_path / 'grid.png').stat().st_size > 5000


def test_other_comparisons_are_no_grid():
  with pytest.raises(InputError, match='missing30_noisy20/relief'):
    robustness.grid([run('cnn/relief', 0, 0.5, [0.4])])
