"""Columns: F1 at equal cost, costs to a target, tiers and persons."""

import csv
import io

import pytest
import rich.console

from relief_jax.errors import InputError
from relief_jax.report import (
  chosen,
  columns,
  frame,
  gather,
  page,
  printed,
  readings,
  tables,
)
from relief_jax.scoring import metrics


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
  return gather.Run(label, seed, 0, {'target_f1': target}, metrics)


def collection(*runs):
  return gather.Collection(runs, 'fedavg', notes=['Values: a.'])


def cells(*runs):
  return tables.cells_of(collection(*runs))


def history(one):
  (found,) = frame.histories(frame.tidy([one])).values()
  return found


KNOWN = {column.name: column for column in columns.every(metrics.F1)}


def shown(cell, name):
  return tables.text(cell, KNOWN[name])


SLOW = run('fedavg', [0.0, 0.2, 0.4, 0.6, 0.7], 8.0)


def at(cost, rounds):
  return f'f1_at_{cost}_of_{rounds}_rounds'


def test_the_cost_of_rounds_is_interpolated():
  assert readings.cost_at(history(SLOW), 'sim_seconds', 30) == 240
  assert readings.cost_at(history(SLOW), 'sim_seconds', 15) == pytest.approx(
    120
  )
  assert readings.cost_at(history(SLOW), 'joules', 5) == pytest.approx(80)
  assert readings.cost_at(history(SLOW), 'sim_seconds', 41) is None  # it had 40
  assert readings.cost_at(history(SLOW), 'bytes', 10) is None


def test_f1_at_the_baselines_cost():
  """The base spends 80 s in 10 rounds, in which the other has 16 rounds."""
  other = run('relief', [0.0, 0.3, 0.5, 0.5, 0.7, 0.8], 5.0)
  found = cells(SLOW, other)
  assert found['relief'][at('seconds', 10)].mean == pytest.approx(0.42)
  assert found['relief'][at('joules', 10)].mean == pytest.approx(0.42)
  assert found['relief'][at('seconds', 30)].mean == pytest.approx(0.78)
  assert found['fedavg'][at('seconds', 30)].mean == pytest.approx(0.60)
  for label in found:  # the base has no hundred rounds
    assert not found[label][at('seconds', 100)].number
  assert not found['relief'][at('seconds', 30)].ended
  assert not found['fedavg'][at('joules', 30)].ended


def test_an_error_at_the_baselines_cost():
  """As F1, and the target is reached from above."""
  base, other = (
    gather.Run(
      label,
      0,
      0,
      {'target': 1.5},
      [
        {'round': 10 * i, 'sim_seconds': seconds * 10 * i, 'rmse': 3.0 - i}
        for i in range(3)
      ],
    )
    for label, seconds in (('fedavg', 2.0), ('relief', 1.0))
  )
  found = cells(base, other)
  assert found['relief']['rmse_at_seconds_of_10_rounds'].mean == 1
  assert found['fedavg']['rmse_at_seconds_of_10_rounds'].mean == 2
  assert found['relief']['sim_seconds_to_target'].mean == 15
  (equal,) = (
    t
    for t in tables.tables_of(collection(base, other))
    if t.name == 'equal_cost'
  )
  assert equal.title == 'RMSE at equal cost'
  assert equal.text.loc['relief', 's of 10 rounds'] == '1.00'


def test_a_run_that_is_over_is_marked_and_not_continued():
  """Of two runs one ends after 200 s, the base's 30 rounds take 240."""
  short = run('relief', [0.0, 0.3, 0.5, 0.6, 0.66], 5.0)
  longer = run('relief', [0.0, 0.3, 0.5, 0.6, 0.7, 0.75], 5.0, seed=1)
  base = SLOW._replace(seed=1)
  found = cells(SLOW, base, short, longer)['relief'][at('seconds', 30)]
  assert found.mean == pytest.approx((0.66 + 0.74) / 2)
  assert (found.number, found.ended) == (2, 1)
  assert shown(found, at('seconds', 30)).endswith(' *1/2')
  alone = cells(SLOW, short)['relief'][at('seconds', 30)]
  assert shown(alone, at('seconds', 30)) == '66.0 *'


def test_pairs_are_by_seed():
  """Each run is held against the base of its own seed."""
  quick = run('fedavg', [0.0, 0.2, 0.4, 0.6], 4.0, seed=1)
  other = [run('relief', [0.0, 0.4, 0.8, 0.8], 8.0, seed=s) for s in (0, 1, 2)]
  found = cells(SLOW, quick, *other)['relief'][at('seconds', 10)]
  assert found.mean == pytest.approx((0.4 + 0.2) / 2)
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
  found = readings.to_target(history(run('x', f1, 3.0)), 'round')
  assert found == (None if rounds is None else pytest.approx(rounds))
  if rounds:
    seconds = readings.to_target(history(run('x', f1, 3.0)), 'sim_seconds')
    assert seconds == pytest.approx(3 * rounds)


def test_to_target_is_told_with_how_many_reach_it():
  own = [
    run('relief', f1, 1.0, seed)
    for seed, f1 in enumerate(([0.0, 0.5], [0.0, 1.0], [0.0, 0.4]))
  ]
  base = [SLOW._replace(seed=seed) for seed in range(3)]
  found = cells(*own, *base, *[run('never', [0.0, 0.4], 1.0)])
  assert (
    shown(found['relief']['rounds_to_target'], 'rounds_to_target')
    == '7.50 (2/3)'
  )
  assert (
    shown(found['fedavg']['rounds_to_target'], 'rounds_to_target')
    == '25.0 (3/3)'
  )
  assert (
    shown(found['never']['rounds_to_target'], 'rounds_to_target') == '– (0/1)'
  )
  name = 'speed_up_to_target'  # 200 s against 10 and 5
  assert shown(found['relief'][name], name) == '30.00 (2/3)'
  some = {'never': found['never']}
  assert 'rounds to target' in tables.texts(columns.COST, some)


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
    'f1_worst_tier': 0.30,
    'f1_worst_person': 0.40,
    'f1_person_range': 0.25,
    'f1_global': 0.55,
    'f1_own': 0.70,
    'f1_own_rare_owners': 0.80,
    'f1_own_rare_owners_difference': 0,
  }
  assert {k: row[k].mean for k in expected} == pytest.approx(expected)


def test_shares_in_files_percent_in_texts():
  """One number, in its two units."""
  (table, *_) = tables.tables_of(collection(SLOW))
  assert table.text.loc['fedavg', 'f1 %'] == '70.0'
  (row,) = csv.DictReader(io.StringIO(table.csv()))
  assert float(row['f1']) == pytest.approx(0.7)


def test_the_tidy_table_has_every_number_once():
  one = run(
    'a/relief', [0.0, 0.5], 1.0, 3, f1_by_tier={'low': 0.3, 'off': None}
  )
  one.metrics[-1]['f1_by_exit'] = [0.1, 0.2]
  found = frame.tidy([one, one])
  assert list(found) == ['label', 'seed', 'fold', 'round', 'metric', 'value']
  last = found[found['round'] == 10].set_index('metric').value
  assert last.to_dict() == {
    'sim_seconds': 10,
    'joules': 20,
    'f1': 0.5,
    'f1_by_tier.low': 0.3,
    'f1_by_exit.0': 0.1,
    'f1_by_exit.1': 0.2,
    'target_f1': 0.5,
  }


def test_older_runs_have_no_such_columns():
  """A column is left out where no run has its field; the CSV keeps it."""
  found = tables.tables_of(collection(SLOW))
  by_name = {table.name: table for table in found}
  assert 'persons' not in by_name
  assert not [h for h in by_name['accuracy'].text if 'own' in h]
  text = by_name['accuracy'].csv()
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
  made = tables.tables_of(collection(*runs))
  assert [table.name for table in made] == [
    'headline',
    'accuracy',
    'cost',
    'equal_cost',
    'persons',
  ]
  assert max(table.text.shape[1] for table in made) <= 11
  for table in made:
    assert list(table.text.index) == list(table.numbers.index)
  assert 'Values: a.' in made[0].note
  tex = made[3].tex()
  assert 's of 30 rounds' in tex and r'70.0 $\pm$ 0 {*}' in tex
  assert 'F1 % at equal cost' in page.render(collection(*runs), [], made[3:4])


@pytest.mark.parametrize('width', range(60, 90))
def test_no_cell_is_cut_in_a_terminal(width):
  out = io.StringIO()
  console = rich.console.Console(file=out, width=width)
  printed.show(collection(SLOW, run('relief', [0.0, 0.3, 0.6], 5.0)), console)
  assert '…' not in out.getvalue()
  assert max(map(len, out.getvalue().splitlines())) <= width


def test_the_terminal_says_the_headline_and_the_file_all(tmp_path):
  short = run('relief', [0.0, 0.3, 0.5, 0.6, 0.66], 5.0)
  found = collection(SLOW, short)
  out = io.StringIO()
  console = rich.console.Console(file=out, width=120)
  printed.show(found, console)
  printed.save(found, tmp_path)
  text = (tmp_path / 'table.md').read_text()
  for expected in ('66.0', '(1/1)', 'speed-up', 'base is'):
    assert expected in out.getvalue()
  for expected in ('66.0 *', 's of 30 rounds', 'more rounds are not'):
    assert expected in text and expected not in out.getvalue()
  assert text.endswith('Values: a.\n')
  with open(tmp_path / 'table.csv', newline='') as file:
    rows = {row['label']: row for row in csv.DictReader(file)}
  assert rows['relief'][at('seconds', 30) + '_ended'] == '1'
  assert rows['relief']['rounds_to_target_n'] == '1'
  assert float(rows['relief'][at('seconds', 30)]) == pytest.approx(0.66)


def test_a_table_of_chosen_columns():
  """A row per label, the largest of the first column above; one per group."""
  fast = run('cnn/relief', [0.0, 0.3, 0.5, 0.5, 0.7, 0.8], 5.0)
  slow = run('cnn/fedavg', [0.0, 0.2, 0.4, 0.6, 0.7], 8.0)
  other = run('lora/fedavg', [0.0, 0.4], 8.0)
  made = chosen.tables_of(
    collection(slow, fast, other), ['f1', 'speed_up', at('seconds', 10)]
  )
  assert [table.title for table in made] == ['cnn', 'lora']
  assert made[0].markdown().splitlines() == [
    '| method | f1 % | speed-up | s of 10 rounds |',
    '| --- | ---: | ---: | ---: |',
    '| relief | 80.0 | 1.60 | 42.0 |',
    '| fedavg | 70.0 | 1.00 | 20.0 |',
  ]
  assert 'what the base spends in so many rounds' in made[0].note
  assert 'base is fedavg' in made[0].note


def test_a_target_that_nobody_reached_is_told():
  low = run('fedavg', [0.0, 0.2], 8.0)
  (made,) = chosen.tables_of(collection(low), ['f1', 'rounds_to_target'])
  assert made.text.loc['fedavg', 'rounds to target'] == '– (0/1)'


def test_intervals_of_some_columns_alone():
  pair = [
    run('fedavg', [0.0, f1], 8.0, seed) for seed, f1 in enumerate((0.4, 0.5))
  ]
  every, some = (
    chosen.tables_of(collection(*pair), ['f1', 'joules'], names)[0].text
    for names in (None, ['joules'])
  )
  assert every.loc['fedavg', 'f1 %'] == '45.0 ± 63.5'
  assert some.loc['fedavg', 'f1 %'] == '45.0'
  assert every.loc['fedavg', 'J'] == some.loc['fedavg', 'J'] == '160 ± 0'
  with pytest.raises(InputError, match='accuracy'):
    chosen.tables_of(collection(*pair), ['f1'], ['accuracy'])


@pytest.mark.parametrize('names', [['f2'], ['f1', 'f2'], ['epsilon']])
def test_a_column_that_nobody_has_is_refused(names):
  with pytest.raises(InputError, match=names[-1]):
    chosen.tables_of(collection(SLOW), names)
