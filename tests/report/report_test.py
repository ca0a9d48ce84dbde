"""The report: what it is made from, and that the page stands alone."""

import csv
import html.parser
import math
import shutil
import subprocess
import sys

import html5lib
import numpy as np
import pytest
import scipy.stats

from relief_jax.campaign import campaign, execution, points
from relief_jax.errors import InputError
from relief_jax.report import (
  gather,
  page,
  run_charts,
  stats,
  writer,
)
from relief_jax.storage import records
from tests.support.campaigns import config, run_inline

SWEPT = {
  'hparams.client_lr': '.03,.1',
  'seed': '0:2',
  'method': 'relief,fedavg',
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A finished sweep of the stand-in, with its report in `out`."""
  folder = tmp_path_factory.mktemp('sweep')
  with pytest.MonkeyPatch.context() as patch:
    run_inline(patch)
    patch.setattr('sys.argv', ['sweep.py', '--sweep.seed=0:2'])
    found = points.expand([], points.swept(config(), SWEPT))
    swept = campaign.of_sweep(config(), found, folder)
    assert execution.run(swept, folder, 1) == 0
  writer.write(gather.gather([folder]), folder / 'out')
  return folder


class Page(html.parser.HTMLParser):
  """Checks that tags close and nothing is fetched."""

  EMPTY = ('meta', 'img', 'br', 'link')

  def __init__(self):
    super().__init__()
    self.open, self.images, self.ids, self.links = [], [], [], []
    self.text = ''

  def handle_starttag(self, tag, attrs):
    found = dict(attrs)
    assert tag not in ('script', 'link', 'iframe')
    for key in ('src', 'href'):
      assert found.get(key, '#').startswith(('data:image/png;base64,', '#'))
    if tag == 'img':
      assert found['alt'] and found['width']
      self.images.append(found)
    if 'id' in found:
      self.ids.append(found['id'])
    if tag == 'a':
      self.links.append(found['href'][1:])
    if tag not in self.EMPTY:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def test_the_page_stands_alone(folder):
  text = (folder / 'out' / 'report.html').read_text()
  assert len(text) < 5e6 and '://' not in text
  html5lib.HTMLParser(strict=True).parse(text)  # raises at the first error
  found = Page()
  found.feed(text)
  assert not found.open and len(set(found.ids)) == len(found.ids)
  assert set(found.links) <= set(found.ids)
  stems = {p.stem for p in (folder / 'out' / 'figures').glob('*.png')}
  assert len(stems) == len(found.images)
  assert stems == {p.stem for p in (folder / 'out').glob('figures/*.pdf')}
  assert {
    'gantt_client_lr_0.1_relief',
    'pareto_time',
    'sensitivity_hparams.client_lr',
    'client_lr_0.1_f1_rounds',
    'client_lr_0.1_f1_bytes',
    'client_lr_0.1_divergence_relief',
    'confusion_client_lr_0.1_relief',
    'client_lr_0.1_devices',
    'client_lr_0.1_differences',
  } <= stems
  assert any(stem.startswith('who_trained_what') for stem in stems)
  for expected in ('8 runs', '--sweep.seed=0:2', 'jax 0.', 'hparams.client_lr'):
    assert expected in found.text


def test_lines_are_where_the_numbers_are(folder):
  """A figure that shows nothing of its data is worse than none."""
  for chart in run_charts.sensitivity(gather.gather([folder])):
    (axes,) = chart.panels[''].axes
    low, high = axes.get_xlim()
    bottom, top = axes.get_ylim()
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2]
    assert lines
    for line in lines:
      assert all(low <= x <= high for x in line.get_xdata())
      assert all(bottom <= y <= top for y in line.get_ydata())


def test_tables_hold_what_the_runs_say(folder):
  collection = gather.gather([folder])
  assert (collection.baseline, collection.numbers) == ('fedavg', 'seeds')
  with open(folder / 'out/tables/headline.csv', newline='') as file:
    rows = {row['label']: row for row in csv.DictReader(file)}
  assert len(rows) == 4
  own = [r for r in collection.runs if r.label == 'client_lr=0.1/relief']
  f1 = [run.metrics[-1]['f1'] for run in own]
  row = rows['client_lr=0.1/relief']
  assert float(row['f1']) == pytest.approx(np.mean(f1))
  # The stand-in knows no method: equal values, so no difference at all.
  assert float(row['f1_difference']) == 0 and float(row['p_holm']) == 1
  assert rows['client_lr=0.1/fedavg']['p_holm'] == ''
  with open(folder / 'out/tables/fairness.csv', newline='') as file:
    fair = {row['label']: row for row in csv.DictReader(file)}
  clients = config().clients
  gini = stats.gini(np.arange(1, clients + 1))
  assert float(fair['client_lr=0.1/relief']['gini']) == pytest.approx(gini)
  tex = (folder / 'out/tables/headline.tex').read_text()
  assert r'client\_lr=0.1/relief & ' in tex and r'$\pm$' in tex
  assert tex.count(r'\\') == 5


def test_shards_are_put_together_in_order(folder, tmp_path):
  whole = records.read_json(folder / 'manifest.json')
  parts = tmp_path / 'parts'
  shutil.copytree(folder, parts, ignore=shutil.ignore_patterns('out'))
  (parts / 'manifest.json').unlink()
  for i in range(3):
    shard = {**whole, 'points': whole['points'][i::3]}
    records.write_json(parts / f'manifest-{i + 1}of3.json', shard)
  found, expected = (
    [(run.label, run.seed) for run in gather.gather([f]).runs]
    for f in (parts, folder)
  )
  assert found == expected and len(found) == 8
  both = gather.gather([parts, folder])
  assert both.runs[0].label == 'parts/client_lr=0.03/relief'


def test_what_is_not_finished_is_listed(folder, tmp_path):
  copy = tmp_path / 'copy'
  shutil.copytree(folder, copy, ignore=shutil.ignore_patterns('out'))
  (copy / 'client_lr=0.1/relief/seed_1/summary.json').unlink()
  collection = gather.gather([copy])
  assert len(collection.runs) == 7
  assert list(collection.unfinished) == ['client_lr=0.1/relief seed_1']
  text = page.render(collection, [], [])
  assert '<summary>1 run: ' in text and 'relief seed_1</p>' in text
  single = gather.gather([copy / 'client_lr=0.1/relief/seed_0'])
  assert len(single.runs) == 1
  assert 'relief run --config=' in page.render(single, [], [])
  (copy / 'manifest.json').unlink()  # as a folder of single runs
  (copy / 'config.json').unlink()
  assert [run.label for run in gather.gather([copy]).runs] == sorted(
    run.label for run in collection.runs
  )
  (tmp_path / 'empty').mkdir()
  with pytest.raises(InputError, match='no finished run'):
    gather.gather([tmp_path / 'empty'])


def test_significance_equals_scipys():
  own, base = [0.7, 0.75, 0.71, 0.8], [0.69, 0.7, 0.66, 0.71]
  pairs = [{(0, i): f1 for i, f1 in enumerate(v)} for v in (own, base)]
  found = stats.paired_p(*pairs)
  assert found == pytest.approx(scipy.stats.ttest_rel(own, base).pvalue)
  assert math.isnan(stats.paired_p({(0, 0): 0.7}, pairs[1]))
  assert stats.holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


def test_pareto_front_leaves_out_what_is_beaten():
  found = run_charts.front(
    {
      'dear': (3.0, 9.0, 9.0),
      'worse': (2.0, 9.0, 9.0),
      'quick': (1.0, 1.0, 2.0),
      'frugal': (1.0, 2.0, 1.0),
    }
  )
  assert found == ['quick', 'frugal', 'dear']


def test_the_command_says_what_is_wrong(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'experiments.report', str(tmp_path / 'no')],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.startswith('error: Found no folder')
