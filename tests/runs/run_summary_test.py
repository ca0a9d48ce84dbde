"""What a run tells about its world beside its scores."""

from types import SimpleNamespace

from relief_jax import config
from relief_jax.runs import round_totals, run_summary
from relief_jax.storage import board, job_spec, progress, records
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


def test_a_score_that_is_no_number_ends_no_campaign(tmp_path):
  """A perplexity of exp(1000) is null in files, and read again from there."""
  history = [
    {'round': n, 'perplexity': score, 'sim_seconds': 0.1 * n, 'joules': 1.0 * n}
    for n, score in ((1, None), (2, 9.0), (3, None))
  ]
  totals = dict.fromkeys(round_totals.TOTALS, 0.0)
  own = config.default()
  own.target = 10.0
  found = run_summary.outcome(own, history, 3, totals)
  assert found['rounds_to_target'] == 2
  assert found['best']['perplexity'] == 9.0
  assert found['last']['perplexity'] is None
  assert progress.best_so_far(history[0], None) == (
    'perplexity',
    '– (best –)',
    None,
  )
  assert progress.best_so_far(history[2], 9.0)[1:] == ('– (best 9)', 9.0)
  records.write_json(tmp_path / 'summary.json', {'status': 'complete', **found})
  values = {'hparams.client_lr': 0.5}
  board.parameters(
    job_spec.Job('a', 0, str(tmp_path), {'rounds': 3}, values=values)
  )
  written = b''.join(
    path.read_bytes() for path in (tmp_path / 'tb' / 'hparams').iterdir()
  )
  assert b'hparams.client_lr' in written
  assert b'last_' not in written
