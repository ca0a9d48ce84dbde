"""The tables and heat maps of a robustness grid."""

import csv

import pytest

from relief_jax.errors import InputError
from relief_jax.report import robustness, tables


def run(label, seed, every, without):
  metrics = [{'f1_all': every, 'f1_without': dict(enumerate(without))}]
  return tables.Run(label, seed, {}, metrics)


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
  cell = robustness.cell(list(found[30, 20, 'relief'].values()), 'missing')
  assert cell.mean == pytest.approx(100 * (0.62 + 0.05 - 0.2))
  # The seed moves both methods alike: the paired difference has no interval.
  gap = robustness.difference(found, (30, 0, 'relief'), 'fedavg', 'worst')
  assert gap.mean == pytest.approx(2) and gap.half == pytest.approx(0)
  robustness.write_tables(found, tmp_path)
  with open(tmp_path / 'robustness.csv') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 4
  assert float(rows[0]['complete']) == pytest.approx(85)
  assert (tmp_path / 'robustness.md').read_text().count('\n') == 8
  robustness.draw(found, 'fedavg', tmp_path / 'grid.png')
  assert (tmp_path / 'grid.png').stat().st_size > 5000


def test_other_comparisons_are_no_grid():
  with pytest.raises(InputError, match='missing30_noisy20/relief'):
    robustness.grid([run('cnn/relief', 0, 0.5, [0.4])])
