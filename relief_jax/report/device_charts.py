"""The figures of a report on devices: fairness, who trained what, waiting."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import ticker

from relief_jax.report import charts, frame, labels, palette, stats
from relief_jax.report.gather import Collection, Run
from relief_jax.scoring import metrics
from relief_jax.storage import naming

_DEVICES = 32
_RUNS = 4
_TIERS = 6


# Where devices are tested: end of the fields, end of titles, what they are.
TESTS = (
  ('', '', 'held-out windows'),
  ('_own', ', on own windows', 'its own later windows'),
)


def tiers(collection: Collection) -> list[charts.Chart]:
  """Draws the main metric of slow and of fast devices."""
  return [chart for test in TESTS for chart in _tiers(collection, *test)]


def _tiers(collection, end, where, windows) -> list[charts.Chart]:
  """Draws the same of one of `TESTS`."""
  metric = collection.metric
  every = frame.last(collection.frame, f'{metric.name}{end}_by_tier.')

  def one(own):
    some = every[every.label.isin(own)]
    names = list(some.part.unique())
    if len(names) < 2:
      return '', {}
    figure, here = palette.subplots(
      figsize=(palette.WIDTH, 1.2 + 0.17 * len(names) * (len(own) + 1))
    )
    handles: dict[str, Any] = {}
    found = []
    for (tier, label), values in some.groupby(['part', 'label'], sort=False):
      aside = 0.8 * ((own.index(label) + 0.5) / len(own) - 0.5)
      at, kind = names.index(tier) + aside, collection.styles[label]
      handles[label], told = palette.around(
        here, at, values, kind, metric.scale, across=True
      )
      found.append(told)
    here.set_yticks(np.arange(len(names)), names)
    here.set_ylim(len(names) - 0.5, -0.5)
    for edge in range(len(names) - 1):
      here.axhline(edge + 0.5, color='0.8', linewidth=0.8)
    here.set_xlabel(metric.label)
    here.set_ylabel('tier')
    palette.tidy(here)
    charts.legend(figure, handles)
    return (
      f'Last {metric.title} of the devices of each tier on {windows}, each '
      'with the sensors that it owns, mean. '
      f'{stats.told(found, collection.numbers)}'
    ), {'': figure}

  title, name = f'{metric.short} by tier of devices{where}', f'tiers{end}'
  return charts.per_group(collection, name, title, palette.LINES, one)


def device_scores(run: Run, field: str) -> np.ndarray:
  """Lists the last score of every recorded device of a run, [n].

  Args:
    run: finished.
    field: the score, in devices.jsonl.

  Returns:
    Without devices that have none, or one too large for a number.
  """
  found = run.lines('devices')
  known = found[-1].get(field, ()) if found else ()
  return np.array([v for v in known if v is not None], float)


def histograms(collection: Collection) -> list[charts.Chart]:
  """Draws the distribution of the main metric over the devices."""
  return [chart for test in TESTS for chart in _over_devices(collection, *test)]


def _over_devices(collection, end, where, windows) -> list[charts.Chart]:
  """Draws the same of one of `TESTS`."""
  metric = collection.metric

  def one(own):
    shown, same = {}, []
    for label in own:
      runs = collection.by_label[label]
      found = [device_scores(run, metric.name + end) for run in runs]
      if any(np.ptp(scores) for scores in found if len(scores)):
        shown[label] = metric.scale * np.concatenate(found)
      elif any(map(len, found)):
        same.append(labels.short(label))
    shared = (
      ' Devices with the same sensors share a global model and the test '
      f'windows, hence their {metric.short}.'
    )
    return (
      f'Last {metric.title} of every device on {windows} with the sensors that '
      f'it owns, all {collection.numbers} together. Solid: mean; dashed: mean '
      f'of the worst tenth.{"" if end else shared}'
      + (f' Not drawn: {", ".join(same)}, all devices alike.' if same else '')
    ), {'': _histograms(collection, shown)} if shown else {}

  title, name = f'{metric.short} over the devices{where}', f'devices{end}'
  return charts.per_group(collection, name, title, palette.LINES - 1, one)


def _histograms(collection: Collection, shown: Mapping[str, np.ndarray]):
  metric = collection.metric
  edges = _edges(metric, np.concatenate([*shown.values()]))
  figure, grid = palette.subplots(
    len(shown),
    1,
    figsize=(palette.WIDTH, 0.8 + 1.15 * len(shown)),
    sharex=True,
    squeeze=False,
  )
  for here, (label, values) in zip(grid[:, 0], shown.items(), strict=True):
    here.hist(
      values,
      edges,
      weights=np.full(len(values), 100 / len(values)),
      color=collection.styles[label]['color'],
      alpha=0.5,
    )
    worst, mean = stats.worst_tenth(values, metric.sign), values.mean()
    told = [metric.text(v / metric.scale) for v in (mean, worst)]
    average, tenth = (text.removesuffix(' %') for text in told)
    here.axvline(mean, color='black', linewidth=1.4)
    here.axvline(worst, color='black', linewidth=1.4, linestyle='--')
    here.set_title(
      f'{naming.shorten(labels.short(label), 24)}: mean {average}, worst '
      f'tenth {tenth}, Gini {stats.gini(values):.3f}',
      fontsize=8,
      loc='left',
    )
    here.set_ylabel('devices (%)', fontsize=8)
    here.yaxis.set_major_locator(ticker.MaxNLocator(3))
    palette.tidy(here)
  unit = ' (%)' if metric.percent else ''
  grid[-1, 0].set_xlabel(f'{metric.title} of a device{unit}')
  grid[-1, 0].set_xlim(edges[0], edges[-1])
  return figure


def _edges(metric: metrics.Metric, values: np.ndarray) -> np.ndarray:
  """Chooses the edges of bins for all panels.

  Shares are drawn from 0, which is the worst; of other scores a zero that
  nobody comes near to would leave no room for the values.
  """
  if metric.percent:
    top = min(100, 5 * math.ceil(values.max() / 5) + 5)
    return np.arange(0, top + 0.1, 2.5)
  low, high = values.min(), values.max()
  aside = 0.05 * (high - low or abs(high) or 1)
  return np.linspace(max(0, low - aside), high + aside, 41)


def by_tier(run: Run) -> np.ndarray:
  """Orders the recorded devices by tier, slow ones first, then by number."""
  fleet = run.summary['fleet']
  last = run.metrics[-1]
  known = list(last.get(f'{metrics.of(last).name}_by_tier') or {})
  rank = {name: i for i, name in enumerate(known)}
  keys = [
    (rank.get(tier, 99), client)
    for tier, client in zip(fleet['tier'], fleet['client'], strict=True)
  ]
  return np.array(sorted(range(len(keys)), key=keys.__getitem__))


def rasters(collection: Collection) -> list[charts.Chart]:
  """Draws the share of each tier's devices that train a group, by round."""
  panels, same = {}, []
  for run, lines in collection.firsts('devices', _RUNS):
    rows = [row for row in lines if row['round']]
    if not rows:
      continue
    shares = _shares(run, rows)
    if (np.stack([*shares.values()]) == 1).all():
      same.append(run.label)
    else:
      ends = [0, *(row['round'] for row in rows)]
      name = naming.file_name(run.label)
      panels[name] = _raster(run, list(rows[0]['trained']), ends, shares)
  if not panels and not same:
    return []
  told = 'every device trains everything in every round'
  return [
    charts.Chart(
      'who_trained_what',
      'Who trained what when',
      'A row per group of parameters. Shade: of the devices of a tier and the '
      'rounds between two evaluations, the share that trained the group; a '
      'tier that does the same throughout has one column, in %. First run of '
      'each label.'
      + (f' Not drawn: {", ".join(same)}, {told}.' if same else ''),
      panels,
    )
  ]


def _shares(run: Run, rows: list[dict]) -> dict[str, np.ndarray]:
  """Computes the share of a tier that trained, tier -> [groups, windows]."""
  tier = np.array(run.summary['fleet']['tier'])
  names = list(dict.fromkeys(tier[by_tier(run)].tolist()))
  if len(names) > _TIERS:
    at = np.linspace(0, len(names) - 1, _TIERS).round().astype(int)
    names = [names[i] for i in at]
  ends = np.array([0, *(row['round'] for row in rows)])
  trained = np.array([[*row['trained'].values()] for row in rows], float)
  share = trained / np.diff(ends)[:, None, None]  # [windows, groups, devices]
  return {name: share[:, :, tier == name].mean(-1).T for name in names}


def _raster(run: Run, groups, ends, shares: Mapping[str, np.ndarray]):
  steady = {k: v[:, 0] for k, v in shares.items() if np.ptp(v, 1).max() < 0.01}
  moving = {k: v for k, v in shares.items() if k not in steady}
  parts: list[Any] = [*moving.items(), *([('', steady)] if steady else [])]
  height = 0.15 * len(groups) + 0.45
  figure, grid = palette.subplots(
    len(parts), 1, (palette.WIDTH, 0.8 + height * len(parts)), squeeze=False
  )
  shade = {'vmin': 0, 'vmax': 1, 'cmap': 'Blues', 'rasterized': True}
  image: Any = None
  tier = run.summary['fleet']['tier']
  for here, (name, share) in zip(grid[:, 0], parts, strict=True):
    down = np.arange(len(groups) + 1)
    if name:
      image = here.pcolormesh(ends, down, share, **shade)
      here.set_title(
        f'{name} ({tier.count(name)}), by round', fontsize=8, loc='left'
      )
      here.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    else:
      share = np.stack([*steady.values()], 1)
      image = here.pcolormesh(np.arange(len(steady) + 1), down, share, **shade)
      for i, j in np.ndindex(share.shape):
        here.text(
          j + 0.5,
          i + 0.5,
          f'{100 * share[i, j]:.0f}',
          ha='center',
          va='center',
          fontsize=7,
          color='white' if share[i, j] > 0.6 else 'black',
        )
      names = [f'{name} ({tier.count(name)})' for name in steady]
      here.set_xticks(np.arange(len(steady)) + 0.5, names, fontsize=7)
      here.set_title('throughout, %', fontsize=8, loc='left')
    here.set_yticks(down[:-1] + 0.5, groups, fontsize=7)
    here.set_ylim(len(groups), 0)
    here.tick_params(axis='both', length=0)
  figure.colorbar(image, ax=grid, label='share', shrink=0.5, aspect=30)
  figure.suptitle(naming.shorten(run.label, 40), fontsize=10)
  return figure


_PHASES = (
  ('download', palette.SKY, '....'),
  ('compute', palette.ORANGE, ''),
  ('upload', palette.BLUE, '////'),
)


def gantt(collection: Collection) -> list[charts.Chart]:
  """Draws the seconds of a round by device."""
  panels = {
    naming.file_name(run.label): _gantt(run, lines[-1]['last'])
    for run, lines in collection.firsts('devices', _RUNS)
    if lines[-1]['last']
  }
  if not panels:
    return []
  return [
    charts.Chart(
      'gantt',
      "A round's time by device",
      'What each device of the last recorded round does: receives the model, '
      'trains, sends its update, waits for the slowest. The order within a '
      'device is that of the cost model. Every panel has its own time axis. '
      f'First run of each label; at most {_DEVICES} devices.',
      panels,
    )
  ]


def _gantt(run: Run, last: dict[str, Any]):
  fleet = run.summary['fleet']
  tier = dict(zip(fleet['client'], fleet['tier'], strict=True))
  place = {fleet['client'][i]: rank for rank, i in enumerate(by_tier(run))}
  clients = last['client']
  order = sorted(range(len(clients)), key=lambda i: place[clients[i]])
  if len(order) > _DEVICES:
    at = np.linspace(0, len(order) - 1, _DEVICES).astype(int)
    order = [order[i] for i in at]
  every = np.array([last[name] for name, *_ in _PHASES])
  unit, scale = palette.time_unit(every.sum(0).max())
  end, widths = scale * every.sum(0).max(), scale * every[:, order]
  figure, here = palette.subplots(
    figsize=(palette.WIDTH, 1.3 + 0.15 * max(len(order), 8))
  )
  handles: dict[str, Any] = {}
  done = np.zeros(len(order))
  frame_of = {'edgecolor': 'black', 'linewidth': 0.4, 'height': 0.8}
  at = np.arange(len(order))
  for (name, colour, hatch), width in zip(_PHASES, widths, strict=True):
    handles[name] = here.barh(
      at, width, left=done, color=colour, hatch=hatch, **frame_of
    )
    done = done + width
  frame_of['edgecolor'] = '0.6'
  handles['idle'] = here.barh(
    at, end - done, left=done, color='white', **frame_of
  )
  names = [f'{tier[clients[i]]} {clients[i]}' for i in order]
  here.set_yticks(at, [naming.shorten(n, 24) for n in names], fontsize=7)
  here.set_ylim(max(len(order), 8) - 0.4, -0.6)
  here.set_xlim(0, end)
  here.xaxis.set_major_locator(ticker.MaxNLocator(6))
  here.set_xlabel(f'simulated time in the round ({unit})')
  here.set_title(
    f'{naming.shorten(run.label, 34)}, round {last["round"]}', fontsize=10
  )
  here.spines[['top', 'right']].set_visible(False)
  charts.legend(figure, handles)
  return figure
