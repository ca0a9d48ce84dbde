"""Columns: F1 at equal cost, costs to a target, tiers and persons."""

import csv
import io
import pathlib

import pytest
import rich.console

from relief_jax.report import columns, gather, page, printed, summaries, tables


def run(label, f1, seconds, seed=0, target=0.5, **last):
  """A run that was evaluated every ten rounds; joules are twice the seconds."""
  metrics = [
    {
      'round': 10 * i,
      'sim_seconds': 10.0 * i * seconds,
      'joules': 20.0 * i * seconds,
      'f1': value,
    }
    for i, value in enumerate(f1)
  ]
  metrics[-1] |= last
  summary = {'target_f1': target, 'sim_seconds_per_round': seconds}
  return tables.Run(label, seed, summary, metrics)


def cells(*runs):
  return tables.table(runs, 'fedavg')


SLOW = run('fedavg', [0.0, 0.2, 0.4, 0.6, 0.7], 8.0)


def at(cost, rounds):
  return f'f1_at_{cost}_of_{rounds}_rounds'


def test_the_cost_of_rounds_is_interpolated():
  assert columns.cost_at(SLOW, 'sim_seconds', 30) == 240
  assert columns.cost_at(SLOW, 'sim_seconds', 15) == pytest.approx(120)
  assert columns.cost_at(SLOW, 'joules', 5) == pytest.approx(80)
  assert columns.cost_at(SLOW, 'sim_seconds', 41) is None  # it had 40
  assert columns.cost_at(SLOW, 'bytes', 10) is None


def test_f1_at_the_baselines_cost():
  """The base spends 80 s in 10 rounds, in which the other has 16 rounds."""
  other = run('relief', [0.0, 0.3, 0.5, 0.5, 0.7, 0.8], 5.0)
  found = cells(SLOW, other)
  assert found['relief'][at('seconds', 10)].mean == pytest.approx(42)
  assert found['relief'][at('joules', 10)].mean == pytest.approx(42)
  assert found['relief'][at('seconds', 30)].mean == pytest.approx(78)
  assert found['fedavg'][at('seconds', 30)].mean == pytest.approx(60)
  for label in found:  # the base has no hundred rounds
    assert not found[label][at('seconds', 100)].number
  assert not found['relief'][at('seconds', 30)].ended
  assert not found['fedavg'][at('joules', 30)].ended


def test_a_run_that_is_over_is_marked_and_not_continued():
  """Of two runs one ends after 200 s, the base's 30 rounds take 240."""
  short = run('relief', [0.0, 0.3, 0.5, 0.6, 0.66], 5.0)
  longer = run('relief', [0.0, 0.3, 0.5, 0.6, 0.7, 0.75], 5.0, seed=1)
  base = SLOW._replace(seed=1)
  found = cells(SLOW, base, short, longer)['relief'][at('seconds', 30)]
  assert found.mean == pytest.approx((66 + 74) / 2)
  assert (found.number, found.ended) == (2, 1)
  assert printed.text(found, 1).endswith(' *1/2')
  alone = cells(SLOW, short)['relief'][at('seconds', 30)]
  assert printed.text(alone, 1) == '66.0 *'


def test_pairs_are_by_seed():
  """Each run is held against the base of its own seed."""
  quick = run('fedavg', [0.0, 0.2, 0.4, 0.6], 4.0, seed=1)
  other = [run('relief', [0.0, 0.4, 0.8, 0.8], 8.0, seed=s) for s in (0, 1, 2)]
  found = cells(SLOW, quick, *other)['relief'][at('seconds', 10)]
  assert found.mean == pytest.approx((40 + 20) / 2)
  assert (found.number, found.total) == (2, 3)  # seed 2 has no base


@pytest.mark.parametrize(
  ('f1', 'rounds'),
  [
    ([0.0, 0.4, 0.6], 15),  # half-way between evaluations, not 20
    ([0.0, 0.5, 0.6], 10),
    ([0.0, 0.6, 0.4, 0.6], 10 * 5 / 6),  # the first time counts
    ([0.6, 0.7], 0),
    ([0.0, 0.4], None),
  ],
)
def test_to_target(f1, rounds):
  found = columns.to_target(run('x', f1, 3.0), 'round')
  assert found == (None if rounds is None else pytest.approx(rounds))
  if rounds:
    seconds = columns.to_target(run('x', f1, 3.0), 'sim_seconds')
    assert seconds == pytest.approx(3 * rounds)


def test_to_target_is_told_with_how_many_reach_it():
  own = [
    run('relief', f1, 1.0, seed)
    for seed, f1 in enumerate(([0.0, 0.5], [0.0, 1.0], [0.0, 0.4]))
  ]
  base = [SLOW._replace(seed=seed) for seed in range(3)]
  found = cells(*own, *base, *[run('never', [0.0, 0.4], 1.0)])
  known = {column.name: column for column in columns.COLUMNS}
  column = known['rounds_to_target']
  assert printed.shown(column, found['relief']) == '7.50 (2/3)'
  assert printed.shown(column, found['fedavg']) == '25.0 (3/3)'
  assert printed.shown(column, found['never']) == '– (0/1)'
  column = known['speed_up_to_target']  # 200 s against 10 and 5
  assert printed.shown(column, found['relief']) == '30.00 (2/3)'
  some = {'never': found['never']}
  assert known['rounds_to_target'] in printed.filled(columns.COST, some)


def test_tiers_and_persons():
  one = run(
    'fedavg',
    [0.0, 0.5],
    1.0,
    f1_by_tier={'low': 0.3, 'high': 0.6, 'none': None},
    f1_by_person={'7': 0.65, '8': 0.4},
    f1_global=0.55,
    f1_own=0.7,
    f1_own_rare_owners=0.8,
  )
  row = cells(one)['fedavg']
  expected = {
    'f1_worst_tier': 30,
    'f1_worst_person': 40,
    'f1_person_range': 25,
    'f1_global': 55,
    'f1_own': 70,
    'f1_own_rare_owners': 80,
    'own_rare_owners_difference': 0,
  }
  assert {k: row[k].mean for k in expected} == pytest.approx(expected)


def collection(*runs):
  found = [
    gather.Found(one, pathlib.Path(one.label), {}, [], [], {}) for one in runs
  ]
  return gather.Collection(found, 'fedavg', 'seeds', [], {}, ['Values: a.'])


def test_older_runs_have_no_such_columns():
  """A column is left out where no run has its field; the CSV keeps it."""
  found = summaries.tables_of(collection(SLOW))
  by_name = {table.name: table for table in found}
  assert 'persons' not in by_name
  assert not [h for h in by_name['accuracy'].head if 'own' in h]
  text = summaries.csv_of(by_name['accuracy'])
  (row,) = csv.DictReader(io.StringIO(text))
  assert row['f1_own'] == '' and row['f1_own_n'] == '0'


def test_tables_are_narrow_and_complete():
  runs = [
    run(
      label,
      [0.0, 0.2, 0.4, 0.6, 0.7],
      seconds,
      seed,
      f1_by_person={'1': 0.5, '2': 0.6},
      f1_by_tier={'low': 0.5},
      f1_own=0.4,
      f1_global=0.3,
    )
    for label, seconds in (('fedavg', 8.0), ('relief', 5.0))
    for seed in (0, 1)
  ]
  shown = summaries.tables_of(collection(*runs))
  assert [table.name for table in shown] == [
    'headline',
    'accuracy',
    'cost',
    'equal_cost',
    'persons',
  ]
  assert max(len(table.head) for table in shown) <= 12
  for table in shown:
    assert {len(row) for row in table.rows} == {len(table.head)}
    assert {len(row) for row in table.raw} == {len(table.raw_head)}
  assert 'Values: a.' in shown[0].note
  tex = summaries.tex_of(shown[3])
  assert 's of 30 rounds' in tex and r'70.0 $\pm$ 0 {*}' in tex
  assert 'F1 % at equal cost' in page.render(collection(*runs), [], shown[3:4])


def test_the_terminal_and_the_file_say_the_same(tmp_path):
  short = run('relief', [0.0, 0.3, 0.5, 0.6, 0.66], 5.0)
  found = cells(SLOW, short)
  out = io.StringIO()
  console = rich.console.Console(file=out, width=120)
  printed.show(found, [SLOW, short], console, 'fedavg')
  printed.save(found, [SLOW, short], tmp_path, note='Values chosen.')
  text = (tmp_path / 'table.md').read_text()
  for expected in ('66.0 *', '(1/1)', 's of 30 rounds', 'more rounds are not'):
    assert expected in text and expected in out.getvalue()
  assert text.endswith('Values chosen.\n')
  with open(tmp_path / 'table.csv', newline='') as file:
    rows = {row['label']: row for row in csv.DictReader(file)}
  assert rows['relief'][at('seconds', 30) + '_ended'] == '1'
  assert rows['relief']['rounds_to_target_n'] == '1'
  assert float(rows['relief'][at('seconds', 30)]) == pytest.approx(66)
