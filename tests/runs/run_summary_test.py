"""What a run tells about its world beside its scores."""

from types import SimpleNamespace

from relief_jax.runs import run_summary
from tests.support import tiny


def test_small_cohorts_are_named():
  owned = [[1, 1]] * 4 + [[1, 0], [1, 1], [1, 0]]
  population = tiny.population(
    tiny.task(modalities=('acc', 'gyro')),
    owned=owned,
    samples=[9, 6, 8, 7, 5, 0, 6],
  )
  found = SimpleNamespace(
    population=population,
    spec=SimpleNamespace(modalities=('acc', 'gyro')),
    notes=(),
  )
  # Padding owns it too, and does not count.
  assert run_summary.smallest_cohort(found) == ('gyro', 4)
  assert run_summary.warnings(found, False) == []
  lacking = run_summary.warnings(found, True)
  assert len(lacking) == 1 and 'modality_dropout=0.3' in lacking[0]
  found.population = tiny.only(population, 0, 1, 2, 4, 6)
  assert run_summary.smallest_cohort(found) == ('gyro', 3)
  assert "3 device(s) own 'gyro'" in run_summary.warnings(found, False)[0]
