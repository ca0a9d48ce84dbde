"""What users call their tiers, sensors and labels is shown as it is."""

import csv
import io

import html5lib
import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from relief_jax.campaign import campaign
from relief_jax.report import (
  gather,
  page,
  palette,
  printed,
  tables,
  world_figure,
  writer,
)
from relief_jax.storage import naming, progress
from tests.support.campaigns import config, run

NAMES = (
  'band_$20_v1_$',
  'a$_x$',
  '_hidden',
  '100 %',
  '<b>&amp;',
  '[red]x',
  '#1~^{}\\alpha',
)


def shown(figure):
  return {text.get_text() for text in figure.findobj(Text)}


@pytest.mark.parametrize('ending', ['png', 'pdf'])
def test_names_are_drawn_as_they_are(ending):
  figure, axes = palette.subplots(figsize=(4, 3))
  lines = [axes.plot([1, 10], [1, 10 + i])[0] for i in range(len(NAMES))]
  palette.legend(axes, lines, NAMES, loc='upper left')
  axes.set_yticks(range(len(NAMES)), NAMES)
  axes.set_title(NAMES[0])
  with matplotlib.rc_context({'text.parse_math': True}):
    figure.savefig(io.BytesIO(), format=ending)
  assert set(NAMES) <= shown(figure)
  assert not any(text.get_parse_math() for text in figure.findobj(Text))
  assert set(NAMES) <= {t.get_text() for t in axes.get_legend().get_texts()}


def test_numbers_of_a_logarithmic_axis_need_no_mathematics():
  for low, high in ((1e-6, 1e3), (2, 5)):
    figure, axes = palette.subplots(figsize=(4, 3))
    axes.plot([1, 2], [low, high])
    palette.logarithmic_y(axes)
    figure.savefig(io.BytesIO())
    ticks = [t.get_text() for t in axes.get_yticklabels(which='both')]
    assert any(ticks) and not any('$' in tick for tick in ticks)


def test_a_world_of_odd_names(tmp_path):
  kinds = len(NAMES)
  for clients in (kinds, 100):  # a bar each, or a line per kind
    found = world_figure.View(
      dataset='npz',
      table=np.ones((clients, kinds), int),
      classes=NAMES,
      subjects=np.ones(clients, int),
      owned=np.ones((clients, kinds), bool),
      modalities=NAMES,
      kind=np.arange(clients) % kinds,
      kinds=NAMES,
      speed=np.ones(clients),
      unused=0,
      shared=0,
    )
    world_figure.draw(found, tmp_path / 'world.png')


def test_the_terminal_interprets_nothing(capsys):
  for name in (*NAMES, ':smile:', '[/]'):
    run = gather.Run(name, 0, 0, {}, [{'round': 1, 'f1': 0.5}])
    printed.show(gather.Collection([run], name), progress.console())
    assert name in capsys.readouterr().out


def test_a_page_and_tables_of_odd_names(tmp_path):
  shown = pd.DataFrame({'f1': '1.0 ± 0.5'}, index=NAMES)
  table = tables.Table('headline', 'T', shown, shown, 'base is a\nb')
  read = list(csv.reader(io.StringIO(table.csv())))
  assert [row[0] for row in read[1:]] == list(NAMES)
  tex = table.tex()
  assert r'band\_\$20\_v1\_\$ & ' in tex and r'100 \% & ' in tex
  assert r'1.0 $\pm$ 0.5 \\' in tex
  assert r'$<$b$>$\&amp;' in tex and '{[}red]x' in tex
  assert tex.splitlines()[0] == '% base is a b'
  text = page.render(gather.Collection([], 'a'), [], [table])
  html5lib.HTMLParser(strict=True).parse(text)
  assert '&lt;b&gt;&amp;amp;' in text
  assert naming.markdown('a|b <i> $x$') == r'a\|b \<i\> \$x\$'
  assert naming.markdown('client_lr=0.1/relief') == 'client_lr=0.1/relief'


@pytest.mark.slow
def test_a_long_search_runs_and_is_reported(inline, tmp_path):
  """Its names are cut, stay apart, and are the same every time."""
  found = {
    f'hparams.{key}': value
    for key, value in config().hparams.items()
    if isinstance(value, float)
  }
  found |= {f'sensor_faults.{key}': 0.0 for key in config().sensor_faults}
  found |= {f'synthetic.{key}': v for key, v in config().synthetic.items()}
  points = [
    {**found, 'hparams.ema': ema, 'seed': 0, 'target_f1': 1 / 3}
    for ema in (0.1, 0.2)
  ]
  first, again = (
    campaign.of_sweep(config(), points, tmp_path).jobs for _ in range(2)
  )
  labels = [job.label for job in first]
  assert labels == [job.label for job in again] and len(set(labels)) == 2
  assert all(len(label.encode()) <= naming.MOST for label in labels)
  texts = {
    key.replace('.', '__'): str(value) for key, value in points[0].items()
  }
  assert run(tmp_path, **texts) == 0
  writer.write(gather.gather([tmp_path]), tmp_path / 'out')
