"""What a reader must be able to see in the figures: one test per old fault."""

import base64
import io
import json
import re

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from relief_jax.errors import InputError
from relief_jax.report import (
  charts,
  curves,
  device_charts,
  gather,
  merge_charts,
  page,
  palette,
  run_charts,
  stats,
  tables,
)

METHODS = ('fedavg', 'relief', 'fedprox', 'heterofl', 'local_only')


def collection(seeds=5, tiers=('low', 'high'), unit=1.0, seconds=1.0):
  """Runs of all `METHODS`, whose F1 rises and differs between seeds."""
  runs = []
  for m, method in enumerate(METHODS):
    for seed in range(seeds):
      metrics = []
      for i in range(5):
        f1 = min(0.97, 0.2 * i + 0.02 * m + 0.04 * seed)
        metrics.append(
          {
            'round': 10 * i,
            'sim_seconds': seconds * unit * i * (m + 1),
            'joules': 5.0 * i / (m + 1),
            'up_bytes': 1e6 * i,
            'f1': f1,
            'f1_by_tier': dict.fromkeys(tiers, f1),
            'divergence': {'a': 1.0 + m, 'b': 2.0},
          }
        )
      runs.append(gather.Run(method, seed, 0, {'dataset': 'd'}, metrics))
  return gather.Collection(runs, 'fedavg')


def panels(found):
  return {
    chart.name: chart.panels
    for draw in (
      curves.charts_of,
      run_charts.differences,
      run_charts.pareto,
      device_charts.tiers,
    )
    for chart in draw(found)
  }


def texts(axes):
  return [text for text in axes.texts if text.get_text()]


def boxes(figure, some):
  figure.savefig(io.BytesIO())  # lays it out
  return [Text.get_window_extent(text) for text in some if text.get_text()]


def test_a_colour_scale_and_all_lines_keep_their_colours(tmp_path):
  """A palette of 128 colours merged lines and cut scales into bands."""
  drawn, (left, right) = palette.subplots(1, 2, (palette.WIDTH, 8))
  left.figure.colorbar(left.imshow(np.eye(9), cmap='Blues'), ax=left, aspect=40)
  for i in range(7):
    right.plot(np.arange(6) * (1 + 0.3 * i), **palette.style(i))
  chart = charts.Chart('some', 'Some', 'Lines.', {'': drawn})
  (saved,) = page.save(chart, tmp_path)
  image = Image.open(io.BytesIO(base64.b64decode(saved.png))).convert('RGB')
  pixels = np.unique(np.asarray(image).reshape(-1, 3), axis=0).astype(int)
  for colour in palette.COLOURS:
    own = 255 * np.array(matplotlib.colors.to_rgb(colour))
    assert abs(pixels - own).max(1).min() < 2, colour
  blues = matplotlib.colormaps['Blues'](np.arange(256), bytes=True)[:, :3]
  seen = [abs(pixels - one.astype(int)).max(1).min() <= 1 for one in blues]
  assert np.mean(seen) > 0.9


def test_a_method_has_one_colour_and_no_two_look_alike():
  """FedAvg was black in one figure and blue in another."""
  found = collection()
  styles = found.styles
  looks = {(s['color'], s['linestyle']) for s in styles.values()}
  assert len(looks) == len(METHODS)
  assert styles['fedavg']['color'] == palette.BLACK
  for name, figures in panels(found).items():
    for figure in figures.values():
      for axes in figure.axes:
        for text in texts(axes):  # names at the ends of lines
          method = text.get_text().split()[-1]
          assert text.get_color() == styles[method]['color'], name
        labels = [t.get_text() for t in axes.get_yticklabels()]
        if name == 'differences':  # a mark beside each name
          marks = {
            labels[round(float(line.get_ydata()[0]))]: line.get_color()
            for line in axes.lines
            if line.get_marker() not in ('None', '|')
          }
          assert marks == {x: styles[x]['color'] for x in METHODS[1:]}
  many = [palette.style(i) for i in range(40)]
  assert (
    len({(str(s['linestyle']), s['color'], s['marker']) for s in many}) > 35
  )
  for i in range(1, 30):  # neighbours in a panel differ in colour
    assert len({palette.style(j)['color'] for j in (0, *range(i, i + 6))}) == 7


def test_who_share_a_panel_differ_in_colour():
  """The best of one group are not the best of another."""
  runs = []
  for group in range(3):
    for i in range(14):
      f1 = ((i * (2 * group + 1)) % 14) / 20
      metrics = [{'round': 1, 'f1': f1}]
      runs.append(gather.Run(f'g{group}/m{i}', 0, 0, {}, metrics))
  found = gather.Collection(runs, 'm3')
  for group in range(3):
    own = found.foremost(palette.LINES, f'g{group}')
    assert len({found.styles[x]['color'] for x in own}) == palette.LINES
    assert found.styles[f'g{group}/m0'] == found.styles['g0/m0']


@pytest.mark.parametrize('seeds', [2, 4])
def test_few_seeds_are_lines_and_many_an_interval_within_100(seeds):
  """Two seeds gave a t-interval as high as the panel, and beyond 100 %."""
  found = collection(seeds)
  (chart,) = curves.charts_of(found)
  (axes,) = chart.panels['rounds'].axes
  thin = [line for line in axes.lines if line.get_linewidth() < 1]
  assert len(axes.collections) == (0 if seeds < 4 else len(METHODS))
  assert len(thin) == (seeds * len(METHODS) if seeds < 4 else 0)
  for band in axes.collections:
    y = band.get_paths()[0].vertices[:, 1]
    assert 0 <= y.min() and y.max() <= 97
  assert ('bootstrap over seeds' in chart.caption) == (seeds >= 4)
  assert ('every run is shown' in chart.caption) == (seeds < 4)
  (tiers,) = device_charts.tiers(found)
  for line in tiers.panels[''].axes[0].lines[:-1]:  # the last: between tiers
    assert np.max(line.get_xdata()) <= 97


def test_the_bootstrap_draws_persons_then_seeds():
  """Seeds of a fold test the same persons: they are no more persons."""
  folds = np.repeat(np.arange(4), 5)
  values = np.repeat([0.2, 0.4, 0.6, 0.8], 5)
  low, high = stats.bootstrap(values, folds)
  alone, above = stats.bootstrap(values[::5], folds[::5])
  assert (low, high) == pytest.approx((alone, above), abs=0.03)
  assert 0.2 <= low < 0.5 < high <= 0.8
  counted = stats.bootstrap(values, np.zeros(20))  # as if 20 persons
  assert counted[1] - counted[0] < 0.6 * (high - low)
  assert stats.bootstrap(values[:15], folds[:15]) is None  # three persons
  steady = stats.bootstrap(np.full(4, 0.5), np.zeros(4))
  assert steady == pytest.approx((0.5, 0.5))


def test_lines_that_coincide_are_named_apart():
  """One hid the other, and the legend did not tell which."""
  (chart,) = curves.charts_of(collection(1))
  for figure in chart.panels.values():
    some = boxes(figure, figure.axes[0].texts)
    assert len(some) == len(METHODS)
    for i, one in enumerate(some):
      assert one.x1 <= figure.bbox.x1 + 1
      assert not any(one.overlaps(other) for other in some[:i])


def scattered(count):
  """Labels of which most have nearly the same F1 and cost."""
  rng, runs = np.random.default_rng(0), []
  for i in range(count):
    cost = float(rng.choice([1, 1.02, 9]))
    last = {'round': 9, 'sim_seconds': cost, 'joules': cost + i / count}
    f1 = 0.6 + 0.01 * rng.normal()
    runs.append(gather.Run(f'label_{i}', 0, 0, {}, [last | {'f1': f1}]))
  return gather.Collection(runs, 'label_0')


@pytest.mark.parametrize('count', [2, 24, 70])
def test_points_of_f1_against_costs_have_names_apart(count):
  """What others beat was crosses without names."""
  (chart,) = run_charts.pareto(scattered(count))
  for figure in chart.panels.values():
    (axes,) = figure.axes
    named = [text.get_text() for text in texts(axes)]
    bold = {t.get_text() for t in texts(axes) if t.get_weight() == 'bold'}
    filled = [
      line
      for line in axes.lines
      if line.get_marker() not in ('None', '.', ',')
      and line.get_markerfacecolor() != 'none'
    ]
    assert 0 < len(bold) == len(filled) <= count
    assert len(set(named)) == len(named) == min(count, 48)
    some = boxes(figure, axes.texts)
    for i, one in enumerate(some):
      assert figure.bbox.x1 + 1 >= one.x1
      assert not any(one.overlaps(other) for other in some[:i])
  assert ('Grey: the 22 worst' in chart.caption) == (count == 70)


def test_errors_are_drawn_as_they_are():
  """Figures of runs without F1 were left out, or were said to be in percent."""
  runs = []
  for method, rmse in (('fedavg', 3.0), ('relief', 2.0), ('fedprox', 4.0)):
    for rate in (0.1, 0.2):
      last = {'round': 1, 'rmse': rmse + rate}
      last['rmse_by_tier'] = {'low': rmse + rate, 'high': rmse}
      values = {'method': method, 'hparams.client_lr': rate}
      label = f'{rate}/{method}'
      runs.append(gather.Run(label, 0, 0, {}, [last], values=values))
  found = gather.Collection(runs, 'fedavg')
  (swept,) = run_charts.sensitivity(found)
  (axes,) = swept.panels[''].axes
  assert axes.get_ylabel() == 'last RMSE'
  (axes,) = device_charts.tiers(found)[0].panels[''].axes
  assert axes.get_xlabel() == 'RMSE'
  assert {np.max(line.get_xdata()) for line in axes.lines} >= {2.0, 3.0, 4.0}
  (axes,) = run_charts.differences(found)[0].panels[''].axes
  assert axes.get_xlabel() == 'RMSE minus that of fedavg'
  names = [text.get_text() for text in axes.get_yticklabels()]
  assert names == ['fedprox', 'relief']  # the best on top
  means = [float(line.get_xdata()[0]) for line in axes.lines[2::2]]
  assert means == pytest.approx([1.0, -1.0])


def recorded(folder, label, scores, **last):
  """A run of three devices that recorded their scores."""
  folder = folder / label
  folder.mkdir()
  fleet = {'tier': ['low', 'low', 'high'], 'client': [0, 1, 2]}
  line = {'round': 1, **{k: [*v, None] for k, v in scores.items()}}
  (folder / 'devices.jsonl').write_text(json.dumps(line) + '\n')
  summary = {'dataset': 'd', 'fleet': fleet}
  return gather.Run(label, 0, 0, summary, [{'round': 1} | last], folder)


def test_devices_and_fairness_follow_the_metric(tmp_path):
  """What is worst is the largest of an error, and drawn where it is."""
  runs = [
    recorded(
      tmp_path,
      label,
      {
        'perplexity': (5.0, 5.0, 5.0),  # the same model and windows
        'perplexity_own': (8.0 + more, 9.0 + more, 12.0 + more),
      },
      perplexity=9.0 + more,
      perplexity_by_tier={'low': 8.5 + more, 'high': 12.0 + more},
      perplexity_by_person={'1': 7.0, '2': 11.0 + more},
    )
    for label, more in (('fedavg', 0.0), ('relief', 1.0))
  ]
  found = gather.Collection(runs, 'fedavg')
  (chart,) = device_charts.histograms(found)
  assert chart.title == 'perplexity over the devices, on own windows'
  assert chart.name == 'devices_own'
  panels = chart.panels[''].axes
  assert panels[-1].get_xlabel() == 'perplexity of a device'
  low, high = panels[-1].get_xlim()
  assert 7 < low < 8 and 13 < high < 14
  for axes, more in zip(panels, (0.0, 1.0), strict=True):
    mean, worst = (float(line.get_xdata()[0]) for line in axes.lines)
    assert (mean, worst) == pytest.approx((29 / 3 + more, 12 + more))
    assert f'worst tenth {12 + more:.3g},' in axes.get_title('left')
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(100)
  made = {table.name: table for table in tables.tables_of(found)}
  assert (made['fairness'].numbers[['worst', 'mean']] == 5).all(axis=None)
  assert (made['fairness'].numbers.gini == 0).all()
  fair = made['fairness_own'].numbers
  assert fair.loc['relief', 'worst'] == 13 and fair.loc['fedavg', 'worst'] == 12
  assert 'of the last perplexity of' in made['fairness_own'].note
  assert '%' not in ''.join(made['fairness_own'].text.columns)
  persons = made['persons'].numbers.loc['relief']
  assert persons['perplexity_worst_tier'] == 13
  assert persons['perplexity_worst_person'] == 12
  assert persons['perplexity_person_range'] == 5
  assert not [name for name in made['accuracy'].numbers if 'f1' in name]


def test_runs_are_compared_by_what_is_beside_the_main_metric(tmp_path):
  runs = [
    recorded(
      tmp_path,
      label,
      {'f1': (0.1, 0.2, 0.3), 'accuracy': (0.5, 0.6, accuracy)},
      f1=0.2,
      accuracy=accuracy,
      accuracy_by_tier={'low': 0.55, 'high': accuracy},
    )
    for label, accuracy in (('fedavg', 0.7), ('relief', 0.9))
  ]
  found = gather.Collection(runs, 'fedavg', score='accuracy')
  assert found.scores == {'fedavg': 0.7, 'relief': 0.9}
  (axes,) = device_charts.tiers(found)[0].panels[''].axes
  assert axes.get_xlabel() == 'accuracy (%)'
  fair = {t.name: t for t in tables.tables_of(found)}['fairness'].numbers
  assert fair.loc['relief', 'worst_tenth'] == 0.5
  assert fair.loc['relief', 'mean'] == pytest.approx(2 / 3)
  with pytest.raises(InputError, match='--metric=rmse'):
    _ = gather.Collection(runs, 'fedavg', score='rmse').metric


@pytest.mark.parametrize('swept', [False, True])
def test_a_value_chosen_for_each_method_is_no_sensitivity(swept):
  runs = []
  for i, method in enumerate(('fedavg', 'relief', 'fedprox')):
    for rate in (0.1, 0.2) if swept else (0.1 * (1 + i),):
      values = {'method': method, 'hparams.client_lr': rate, 'seed': 0}
      label = f'{rate}/{method}'
      runs.append(
        gather.Run(label, 0, 0, {}, [{'round': 1, 'f1': rate}], values=values)
      )
  found = run_charts.sensitivity(gather.Collection(runs, 'fedavg'))
  assert len(found) == swept


@pytest.mark.parametrize('seconds', [3e-6, 4e-3, 1.0, 5e5])
def test_ticks_of_times_do_not_run_into_each_other(tmp_path, seconds):
  """0.000, 0.005, 0.010 of a narrow panel were one row of digits."""
  found = collection(1, seconds=seconds)
  figures = [curves.charts_of(found)[0].panels['time']]
  figures.append(run_charts.pareto(found)[0].panels['time'])
  last = {'round': 9, 'client': [0], 'upload': [seconds * 1.234]}
  last |= {'download': [seconds / 7], 'compute': [seconds * 3.3]}
  run = gather.Run(
    'x',
    0,
    0,
    {'fleet': {'client': [0], 'tier': ['low'], 'owned': ['acc']}},
    [{'round': 9, 'f1': 0.5}],
    tmp_path,
  )
  line = {'round': 9, 'trained': {'a': [3]}, 'last': last, 'f1': [0.5]}
  (tmp_path / 'devices.jsonl').write_text(json.dumps(line) + '\n')
  (chart,) = device_charts.gantt(gather.Collection([run], 'x'))
  figures += chart.panels.values()
  for figure in figures:
    axes = figure.axes[0]
    some = boxes(figure, axes.get_xticklabels())
    inside = [one for one in some if one.x0 < axes.bbox.x1]
    assert len(inside) >= 2
    for one, other in zip(inside[:-1], inside[1:], strict=True):
      assert one.x1 < other.x0


def raster(tmp_path, trained):
  run = gather.Run(
    'x',
    0,
    0,
    {'fleet': {'client': [0, 1], 'tier': ['low', 'high'], 'owned': ['a', 'a']}},
    [{'round': 20, 'f1': 0.5}],
    tmp_path,
  )
  lines = [
    {'round': 10 * (i + 1), 'trained': own, 'last': None, 'f1': [0.5, 0.5]}
    for i, own in enumerate(trained)
  ]
  text = '\n'.join(map(json.dumps, lines)) + '\n'
  (tmp_path / 'devices.jsonl').write_text(text)
  (chart,) = device_charts.rasters(gather.Collection([run], 'x'))
  return chart


def test_who_trains_everything_is_said_and_not_drawn(tmp_path):
  """FedAvg was thirteen solid boxes."""
  chart = raster(tmp_path, [{'g': [10, 10], 'h': [10, 10]}] * 2)
  assert not chart.panels
  assert 'Not drawn: x, every device trains everything' in chart.caption


def test_who_trains_the_same_throughout_is_one_column(tmp_path):
  first, second = {'g': [2, 10], 'h': [10, 0]}, {'g': [8, 10], 'h': [10, 0]}
  (figure,) = raster(tmp_path, [first, second]).panels.values()
  moving, steady = figure.axes[:2]
  assert moving.get_title(loc='left').startswith('low (1), by round')
  shades = moving.collections[0].get_array().reshape(2, 2)
  np.testing.assert_allclose(shades, [[0.2, 0.8], [1, 1]])
  assert [t.get_text() for t in steady.get_xticklabels()] == ['high (1)']
  assert [t.get_text() for t in texts(steady)] == ['100', '0']


def test_labels_of_a_table_keep_their_lines():
  """Beside many columns a label was a column of single letters."""
  frame = pd.DataFrame({'f1 %': ['60.0']}, ['cnn/' + 'fed' * 9])
  shown = [tables.Table('headline', 'Headline', frame, frame, 'note')]
  text = page.render(collection(), [], shown)
  assert f'<th scope="row"><div>cnn/{"fed" * 9}</div></th>' in text
  (rule,) = re.findall(r'tbody th div {(.*?)}', text, re.S)
  assert 'width: max-content' in rule and 'max-width: min(45vw' in rule


def test_panels_are_narrow_and_side_by_side_where_there_is_room():
  """At 400 pixels half of every figure lay outside the page."""
  for figures in panels(collection()).values():
    for figure in figures.values():
      assert figure.get_size_inches()[0] <= palette.WIDTH
      smallest = (
        min(text.get_fontsize() for axes in figure.axes for text in axes.texts)
        if any(axes.texts for axes in figure.axes)
        else 10
      )
      assert smallest * 368 / (72 * palette.WIDTH) > 7  # pixels of a letter
  text = page.render(gather.Collection([], 'a'), [], [])
  assert 'auto-fit' in text and 'max-width: none; width: 44rem' not in text


def test_the_error_of_merges_is_drawn_where_it_is_told():
  found = collection()
  assert merge_charts.errors(found) == []
  for run in found.runs:
    if run.label in ('fedavg', 'relief'):
      for record in run.metrics[1:]:
        record['merge_error'] = 0.0 if run.label == 'relief' else 0.3
  (chart,) = merge_charts.errors(gather.Collection(found.runs, 'fedavg'))
  (axes,) = chart.panels[''].axes
  lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
  assert len(lines) == 2 and axes.get_yscale() == 'log'
  ends = sorted(line.get_ydata()[-1] for line in lines)
  np.testing.assert_allclose(ends, [0.03, 0.3])  # the exact one below
  chart.panels[''].canvas.draw()
  assert not any('$' in tick.get_text() for tick in axes.get_yticklabels())
