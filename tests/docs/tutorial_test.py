"""The notebook runs from top to bottom, and shows what it says."""

import json

import jax
import matplotlib

from relief_jax import algorithms
from tests.support.paths import ROOT

PATH = ROOT / 'examples' / 'tutorial.ipynb'


def test_top_to_bottom(capsys, monkeypatch):
  matplotlib.use('agg')
  # What the notebook adds is taken out afterwards.
  monkeypatch.setitem(algorithms.ALGORITHMS, 'turns', None)
  cells = json.loads(PATH.read_text())['cells']
  code = [''.join(c['source']) for c in cells if c['cell_type'] == 'code']
  space = {}
  with jax.numpy_rank_promotion('allow'):  # as a user has it
    for number, source in enumerate(code):
      exec(compile(source, f'cell {number}', 'exec'), space)  # our own
  out = capsys.readouterr().out
  # 7 of 24 devices own the rare sensor: the others' zeros dilute its mean.
  assert 'encoder/mag    the mean over everybody moves 29%' in out
  results = space['results']
  last = {m: r.to_pandas().iloc[-1] for m, r in results.items()}
  assert all(r['f1'] > 0.4 for r in last.values())  # chance is 1/8
  for cost in ('sim_seconds', 'joules', 'up_bytes'):
    assert last['relief'][cost] < 0.8 * last['fedavg'][cost]
