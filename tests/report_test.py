"""The report: what it is made from, and that the page stands alone."""

import csv
import html.parser
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from experiments import (
  charts,
  device_charts,
  gather,
  points,
  report,
  summaries,
  tables,
)
from experiments.campaign import Campaign
from relief_jax.errors import InputError
from tests.campaign_test import config
from tests.compare_test import inline  # noqa: F401

SWEPT = {
  'hparams.client_lr': '.03,.1,.3',
  'seed': '0:3',
  'method': 'relief,fedavg',
}


def sweep(folder, parts=1):
  found = points.expand([], points.swept(config(), SWEPT))
  jobs = points.jobs_of(config(), found, folder)
  for part in range(parts):
    campaign = Campaign(
      jobs, folder, config(), points.baseline(jobs), part=(part + 1, parts)
    )
    assert campaign.run(1) == 0


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


def test_the_page_stands_alone(inline, tmp_path):  # noqa: F811
  sweep(tmp_path)
  collection = gather.gather([tmp_path])
  path = report.write(collection, tmp_path / 'out')
  text = path.read_text()
  assert len(text) < 5e6 and '://' not in text
  page = Page()
  page.feed(text)
  assert not page.open and len(set(page.ids)) == len(page.ids)
  assert set(page.links) <= set(page.ids)
  stems = {p.stem for p in (tmp_path / 'out' / 'figures').glob('*.png')}
  assert len(stems) == len(page.images)
  assert stems == {p.stem for p in path.parent.glob('figures/*.pdf')}
  assert {
    'gantt',
    'pareto',
    'sensitivity_hparams.client_lr',
    'client_lr_0.1_f1',
    'client_lr_0.1_divergence',
    'client_lr_0.1_devices',
    'client_lr_0.1_differences',
  } <= stems
  assert any(stem.startswith('who_trained_what') for stem in stems)
  for expected in ('18 runs', 'pytest', 'jax 0.', 'hparams.client_lr'):
    assert expected in page.text


def test_tables_hold_what_the_runs_say(inline, tmp_path):  # noqa: F811
  sweep(tmp_path)
  collection = gather.gather([tmp_path])
  assert (collection.baseline, collection.numbers) == ('fedavg', 'seeds')
  path = report.write(collection, tmp_path / 'out')
  with open(path.parent / 'tables' / 'headline.csv', newline='') as file:
    rows = {row['label']: row for row in csv.DictReader(file)}
  assert len(rows) == 6
  own = [r for r in collection.runs if r.label == 'client_lr=0.1/relief']
  f1 = [100 * run.metrics[-1]['f1'] for run in own]
  row = rows['client_lr=0.1/relief']
  assert float(row['f1']) == pytest.approx(np.mean(f1))
  # The stand-in knows no method: equal values, so no difference at all.
  assert float(row['f1_difference']) == 0 and float(row['p_holm']) == 1
  assert rows['client_lr=0.1/fedavg']['p_holm'] == ''
  with open(path.parent / 'tables' / 'fairness.csv', newline='') as file:
    fair = {row['label']: row for row in csv.DictReader(file)}
  clients = config().clients
  gini = device_charts.gini(np.arange(1, clients + 1))
  assert float(fair['client_lr=0.1/relief']['Gini']) == pytest.approx(gini)
  tex = (path.parent / 'tables' / 'headline.tex').read_text()
  assert r'client\_lr=0.1/relief & ' in tex and r'$\pm$' in tex
  assert tex.count(r'\\') == 7


def test_shards_are_put_together_in_order(inline, tmp_path):  # noqa: F811
  sweep(tmp_path / 'parts', 3)
  sweep(tmp_path / 'whole')
  parts, whole = (
    [(one.run.label, one.run.seed) for one in gather.gather([f]).found]
    for f in (tmp_path / 'parts', tmp_path / 'whole')
  )
  assert parts == whole
  both = gather.gather([tmp_path / 'parts', tmp_path / 'whole'])
  assert both.found[0].run.label == 'parts/client_lr=0.03/relief'


def test_what_is_not_finished_is_listed(inline, tmp_path):  # noqa: F811
  sweep(tmp_path)
  (tmp_path / 'client_lr=0.1/relief/seed_1/summary.json').unlink()
  collection = gather.gather([tmp_path])
  assert len(collection.found) == 17
  assert list(collection.unfinished) == ['client_lr=0.1/relief seed_1']
  single = gather.gather([tmp_path / 'client_lr=0.1/relief/seed_0'])
  assert len(single.found) == 1
  path = report.write(single, tmp_path / 'one')
  assert 'experiments.main --config=' in path.read_text()
  with pytest.raises(InputError, match='no finished run'):
    (tmp_path / 'empty').mkdir()
    gather.gather([tmp_path / 'empty'])


def test_significance_equals_scipys():
  def runs(values):
    return [
      tables.Run('a', seed, {}, [{'round': 0, 'f1': f1}])
      for seed, f1 in enumerate(values)
    ]

  own, base = [0.7, 0.75, 0.71, 0.8], [0.69, 0.7, 0.66, 0.71]
  found = summaries.paired_p(runs(own), runs(base))
  assert found == pytest.approx(scipy.stats.ttest_rel(own, base).pvalue)
  assert math.isnan(summaries.paired_p(runs(own[:1]), runs(base)))
  assert summaries.holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


def test_pareto_front_leaves_out_what_is_beaten():
  found = charts.front(
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
