"""A round of devices that train a model with a server, step by step."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker

from relief_jax.report import charts, device_charts, palette
from relief_jax.report.gather import Collection, Run
from relief_jax.storage import naming

_DEVICES, _RUNS, _STEPS = 24, 6, 3
_RECEIVE, _SEND, _SERVER = 'receive', 'send', 'server'
_FIRST, _MIDDLE, _LAST = 'forward, up', 'last layers', 'down, backward'
_KINDS = {
  _RECEIVE: (palette.SKY, '....'),
  _FIRST: (palette.ORANGE, ''),
  _MIDDLE: (palette.GREEN, 'xx'),
  _LAST: (palette.VERMILION, '\\\\\\\\'),
  _SEND: (palette.BLUE, '////'),
  _SERVER: (palette.GREY, ''),
}


class Bar(NamedTuple):
  """Describes a bar.

  Attributes:
    row: number of the device, -1 for the server.
    kind: of `_KINDS`.
    start: [s].
    seconds: its width.
  """

  row: int
  kind: str
  start: float
  seconds: float


def step_bars(
  step: Mapping[str, np.ndarray], order: str, start: float
) -> tuple[list[Bar], float]:
  """Lays out one local step, as budgets/server_order.py counts it.

  Args:
    step: seconds of `ahead`, `server`, `middle` and `behind`, [n] each.
    order: `barrier` or `queue`.
    start: of the step.

  Returns:
    Bars, and when the step is over.

  >>> own = {'ahead': [1, 4], 'server': [2, 2], 'middle': [0, 0]}
  >>> own = {k: np.array(v) for k, v in {**own, 'behind': [1, 1]}.items()}
  >>> [int(step_bars(own, order, 0)[1]) for order in ('queue', 'barrier')]
  [7, 9]
  """
  ahead, server, middle, behind = (
    step[name] for name in ('ahead', 'server', 'middle', 'behind')
  )
  bars = [Bar(i, _FIRST, start, v) for i, v in enumerate(ahead)]
  arrived = start + ahead
  served = np.zeros_like(arrived)
  now = arrived.max() if order == 'barrier' else start
  for i in np.argsort(ahead, kind='stable'):
    begin = max(now, arrived[i])
    bars.append(Bar(-1, _SERVER, begin, server[i]))
    now = served[i] = begin + server[i]
  if order == 'barrier':
    served = np.full_like(arrived, now)
  bars += [Bar(i, _MIDDLE, served[i], v) for i, v in enumerate(middle)]
  ready = served + middle
  if order == 'barrier':
    ready = np.full_like(arrived, ready.max())
  bars += [Bar(i, _LAST, ready[i], v) for i, v in enumerate(behind)]
  return bars, (ready + behind).max()


def rounds(collection: Collection) -> list[charts.Chart]:
  """Draws what devices and server do in a round of split training."""
  panels = {
    naming.file_name(run.label): _round(run, lines[-1])
    for run, lines in collection.firsts('devices', _RUNS)
    if np.any(lines[-1].get('step', {}).get('steps', ()))
  }
  if not panels:
    return []
  return [
    charts.Chart(
      'split_round',
      'A round of split training',
      'What devices and the server do in the last recorded round, and in its '
      'first step. Devices receive their part of the model; in each step they '
      'compute its forward pass and send activations up, the server computes '
      'its part, and gradients come down for the backward pass; some have last '
      'layers of their own. White is waiting. The server waits for all '
      'activations (barrier), or serves devices as they come (queue). Of more '
      f'than {_STEPS} steps the first {_STEPS} are drawn; all take as long. '
      'Every panel has its own time axis. First run of each label; at most '
      f'{_DEVICES} devices.',
      panels,
    )
  ]


def _round(run: Run, line: dict[str, Any]):
  last, order = line['last'], _order(run)
  every = {name: np.array(v, float) for name, v in line['step'].items()}
  fleet = run.summary['fleet']
  tier = dict(zip(fleet['client'], fleet['tier'], strict=True))
  place = {
    fleet['client'][i]: r for r, i in enumerate(device_charts.by_tier(run))
  }
  clients = last['client']
  # Who holds the whole model meets the server at the end only.
  parted = [i for i in range(len(clients)) if every['steps'][i]]
  rows = sorted(parted, key=lambda i: place[clients[i]])
  step = {name: value[rows] for name, value in every.items()}
  shown = np.arange(len(rows))
  if len(rows) > _DEVICES:
    shown = np.linspace(0, len(rows) - 1, _DEVICES).astype(int)
  names = [f'{tier[clients[rows[i]]]} {clients[rows[i]]}' for i in shown]
  names = [naming.shorten(n, 24) for n in names]
  figure, axes = palette.subplots(
    2, figsize=(palette.WIDTH, 2.6 + 0.28 * max(len(shown), 8))
  )
  handles: dict[str, Any] = {}
  label = naming.shorten(run.label, 20)
  for here, (bars, end), title in zip(
    axes,
    (_bars(step, order), step_bars(step, order, 0.0)),
    (f'{label}, round {last["round"]}, {order}', 'one step of it'),
    strict=True,
  ):
    handles |= _draw(here, bars, end, shown, names)
    here.set_title(title, fontsize=10)
  charts.legend(figure, {k: handles[k] for k in _KINDS if k in handles})
  return figure


def _draw(here, bars, end, shown, names) -> dict[str, Any]:
  """Draws bars on axes; see `Bar`."""
  at = {int(row): number for number, row in enumerate(shown)} | {-1: len(shown)}
  unit, scale = palette.time_unit(end)
  handles: dict[str, Any] = {}
  for kind, (colour, hatch) in _KINDS.items():
    some = [b for b in bars if b.kind == kind and b.row in at and b.seconds > 0]
    if some:
      handles[kind] = here.barh(
        [at[b.row] for b in some],
        [scale * b.seconds for b in some],
        left=[scale * b.start for b in some],
        color=colour,
        hatch=hatch,
        edgecolor='black',
        linewidth=0.3,
        height=0.8,
      )
  here.axhline(len(shown) - 0.5, color='0.6', linewidth=0.8)
  here.set_yticks(np.arange(len(names) + 1), [*names, 'server'], fontsize=7)
  here.set_ylim(len(names) + 0.6, -0.6)
  here.set_xlim(0, scale * end)
  here.xaxis.set_major_locator(ticker.MaxNLocator(6))
  here.set_xlabel(f'simulated time ({unit})')
  here.spines[['top', 'right']].set_visible(False)
  return handles


def _order(run: Run) -> str:
  method = run.config.get('method', '')
  return run.config.get(method, {}).get('server_order', 'barrier')


def _bars(
  step: Mapping[str, np.ndarray], order: str
) -> tuple[list[Bar], float]:
  """Lays out a round, or the first of its steps."""
  receive, send = step['receive'], step['send']
  bars = [Bar(i, _RECEIVE, 0.0, v) for i, v in enumerate(receive)]
  now = receive.max()
  count = int(step['steps'].max())
  for _ in range(min(count, _STEPS)):
    found, now = step_bars(step, order, now)
    bars += found
  bars += [Bar(i, _SEND, now, v) for i, v in enumerate(send)]
  return bars, now + send.max()
