"""The figures of a report on devices: fairness, who trained what, waiting."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from relief_jax.report import charts, gather, palette, tables
from relief_jax.report.gather import Collection, Found
from relief_jax.storage import naming

_DEVICES = 32


def tiers(collection: Collection) -> list[charts.Chart]:
  """Draws the F1 of slow and of fast devices."""
  made = []
  for group in gather.groups(collection, charts.GROUPS):
    labels = gather.foremost(collection, charts.LINES + 1, group)
    names = list(
      dict.fromkeys(
        tier
        for own in labels.values()
        for tier in own[0].run.metrics[-1].get('f1_by_tier') or {}
      )
    )
    if len(names) < 2:
      continue
    figure, here = palette.subplots(
      figsize=(8.6, 1.2 + 0.2 * len(names) * (len(labels) + 1)),
    )
    handles = {}
    step = 0.8 / len(labels)
    for i, (label, own) in enumerate(labels.items()):
      cells = [
        tables.interval(
          tables.averaged(
            {
              one.run.pair: 100 * found
              for one in own
              if (found := one.run.metrics[-1]['f1_by_tier'].get(tier))
              is not None
            }
          )
        )
        for tier in names
      ]
      at = np.arange(len(names)) + (i - (len(labels) - 1) / 2) * step
      kind = palette.style(i) | {'linestyle': 'none', 'markersize': 6}
      handles[label] = here.errorbar(
        [c.mean for c in cells],
        at,
        xerr=np.nan_to_num([c.half for c in cells]),
        capsize=2,
        elinewidth=1,
        **kind,
      )
    here.set_yticks(np.arange(len(names)), names)
    here.set_ylim(len(names) - 0.5, -0.5)
    for edge in range(len(names) - 1):
      here.axhline(edge + 0.5, color='0.8', linewidth=0.8)
    here.set_xlabel('macro-F1 (%)')
    here.set_ylabel('tier')
    palette.tidy(here)
    charts.legend(figure, handles)
    made.append(
      charts.Chart(
        naming.file_name(group, 'tiers'),
        charts.titled('F1 by tier of devices', group),
        'Last macro-F1 of the devices of each tier, each with the sensors '
        f'that it owns; mean and 95 % interval over {collection.numbers}.',
        figure,
      )
    )
  return made


def device_f1(own: Sequence[Found]) -> np.ndarray:
  """Lists the last F1 of every recorded device of every run, %."""
  found = [one.devices[-1]['f1'] for one in own if one.devices]
  return 100 * np.array([f1 for row in found for f1 in row])


def histograms(collection: Collection) -> list[charts.Chart]:
  """Draws the distribution of F1 over the devices."""
  made = []
  for group in gather.groups(collection, charts.GROUPS):
    labels = {
      label: values
      for label, own in gather.foremost(collection, charts.LINES, group).items()
      if len(values := device_f1(own))
    }
    if not labels:
      continue
    figure, grid = palette.subplots(
      len(labels),
      1,
      figsize=(8.6, 0.8 + 1.25 * len(labels)),
      sharex=True,
      squeeze=False,
    )
    top = max(values.max() for values in labels.values())
    edges = np.arange(0, 100.1, 2.5)
    for here, (label, values) in zip(grid[:, 0], labels.items(), strict=True):
      share = np.full(len(values), 100 / len(values))
      here.hist(
        values,
        edges,
        weights=share,
        color=palette.SKY,
        edgecolor='black',
        linewidth=0.6,
      )
      worst, mean = worst_tenth(values), values.mean()
      here.axvline(mean, color='black', linewidth=1.4)
      here.axvline(
        worst, color=palette.VERMILION, linewidth=1.4, linestyle='--'
      )
      here.set_title(
        f'{naming.shorten(tables.short(label))}: mean {mean:.1f}, '
        f'worst tenth {worst:.1f}, Gini {gini(values):.3f}',
        fontsize=10,
        loc='left',
      )
      here.set_ylabel('devices (%)')
      palette.tidy(here)
    grid[-1, 0].set_xlabel('macro-F1 of a device (%)')
    grid[-1, 0].set_xlim(0, min(100, 5 * math.ceil(top / 5) + 5))
    made.append(
      charts.Chart(
        naming.file_name(group, 'devices'),
        charts.titled('F1 over the devices', group),
        'Last macro-F1 of every device with the sensors that it owns, all '
        f'{collection.numbers} together. Solid: mean; dashed: mean of the '
        'worst tenth. Devices with the same sensors share a global model and '
        'the test windows, hence their F1.',
        figure,
      )
    )
  return made


def worst_tenth(values: np.ndarray) -> float:
  """Averages the worst tenth of the values, at least one."""
  return float(np.sort(values)[: max(1, round(len(values) / 10))].mean())


def gini(values: np.ndarray) -> float:
  """Computes the Gini coefficient: 0 if all are equal, near 1 if one has all.

  >>> gini(np.array([1.0, 1.0])), gini(np.array([0.0, 1.0]))
  (0.0, 0.5)
  """
  values = np.sort(np.asarray(values, float))
  count, total = len(values), values.sum()
  if not total:
    return 0.0
  rank = np.arange(1, count + 1)
  return float(((2 * rank - count - 1) * values).sum() / (count * total))


def by_tier(one: Found) -> np.ndarray:
  """Orders the recorded devices by tier, slow ones first, then by number."""
  fleet = one.run.summary['fleet']
  tier = fleet['tier']
  known = list(one.run.metrics[-1].get('f1_by_tier') or {})
  rank = {name: i for i, name in enumerate(known)}
  keys = [
    (rank.get(t, 99), c) for t, c in zip(tier, fleet['client'], strict=True)
  ]
  return np.array(sorted(range(len(keys)), key=keys.__getitem__))


def _with_devices(collection: Collection, most: int) -> list[Found]:
  """Finds the first run of the best labels that recorded its devices."""
  labels = gather.foremost(collection, most)
  runs = [next((o for o in own if o.devices), None) for own in labels.values()]
  return [one for one in runs if one and 'fleet' in one.run.summary]


def _name(one: Found) -> str:
  return f'{one.run.label}, {one.folder.name.replace("_", " ")}'


def rasters(collection: Collection) -> list[charts.Chart]:
  """Draws the groups trained in each round: devices x rounds, a panel each."""
  made = []
  for one in _with_devices(collection, 4):
    rows = [row for row in one.devices if row['round']]
    if not rows:
      continue
    names = list(rows[0]['trained'])
    order = by_tier(one)
    ends = [0, *(row['round'] for row in rows)]
    columns = min(4, len(names))
    lines = math.ceil(len(names) / columns)
    figure, grid = palette.subplots(
      lines,
      columns,
      figsize=(8.6, 0.9 + 2.5 * lines),
      sharex=True,
      sharey=True,
      squeeze=False,
    )
    image = None
    for here, name in zip(grid.flat, names, strict=False):
      share = np.array(
        [
          np.array(row['trained'][name])[order] / (end - start)
          for row, start, end in zip(rows, ends[:-1], ends[1:], strict=True)
        ]
      ).T
      image = here.pcolormesh(
        ends,
        np.arange(len(order) + 1),
        share,
        vmin=0,
        vmax=1,
        cmap='Blues',
        rasterized=True,
      )
      here.set_title(name, fontsize=9)
    tier = np.array(one.run.summary['fleet']['tier'])[order]
    cuts = np.flatnonzero(tier[1:] != tier[:-1]) + 1
    starts = [0, *cuts.tolist(), len(tier)]
    for here in grid.flat[: len(names)]:
      for cut in cuts:
        here.axhline(cut, color='white', linewidth=2.6)
        here.axhline(cut, color='black', linewidth=1.0)
      here.set_yticks(
        [(a + b) / 2 for a, b in zip(starts[:-1], starts[1:], strict=True)],
        tier[starts[:-1]].tolist(),
      )
      here.set_ylim(len(tier), 0)
      here.tick_params(axis='y', length=0)
    for here in grid.flat[len(names) :]:
      here.set_visible(False)
    for column in range(columns):
      lowest = max(r for r in range(lines) if r * columns + column < len(names))
      grid[lowest, column].set_xlabel('round')
      grid[lowest, column].xaxis.set_tick_params(labelbottom=True)
    if image is not None:
      figure.colorbar(
        image, ax=grid, label='share of the rounds', shrink=0.8, aspect=30
      )
    made.append(
      charts.Chart(
        naming.file_name('who_trained_what', one.run.label),
        f'Who trained what when: {_name(one)}',
        f'A row per device ({len(order)} of '
        f'{one.run.summary.get("clients", len(order))}), by tier; shade: in '
        'what share of the rounds between two evaluations it trained the '
        'group. White: never; dark: in all of them.',
        figure,
      )
    )
  return made


_PHASES = (
  ('download', palette.SKY, '....'),
  ('compute', palette.ORANGE, ''),
  ('upload', palette.BLUE, '////'),
)


def gantt(collection: Collection) -> list[charts.Chart]:
  """Draws the seconds of a round by device."""
  runs = [
    one for one in _with_devices(collection, 4) if one.devices[-1]['last']
  ]
  if not runs:
    return []
  figure, grid = palette.subplots(
    math.ceil(len(runs) / 2),
    min(2, len(runs)),
    figsize=(8.6, 0.8 + 4.4 * math.ceil(len(runs) / 2)),
    squeeze=False,
  )
  handles: dict[str, Any] = {}
  for here, one in zip(grid.flat, runs, strict=False):
    last = one.devices[-1]['last']
    fleet = one.run.summary['fleet']
    tier = dict(zip(fleet['client'], fleet['tier'], strict=True))
    place = {fleet['client'][i]: rank for rank, i in enumerate(by_tier(one))}
    order = sorted(
      range(len(last['client'])), key=lambda i: place[last['client'][i]]
    )
    if len(order) > _DEVICES:
      order = [
        order[i] for i in np.linspace(0, len(order) - 1, _DEVICES).astype(int)
      ]
    at, done = np.arange(len(order)), np.zeros(len(order))
    for name, colour, hatch in _PHASES:
      width = np.array(last[name])[order]
      handles[name] = here.barh(
        at,
        width,
        left=done,
        color=colour,
        hatch=hatch,
        edgecolor='black',
        linewidth=0.4,
        height=0.8,
      )
      done = done + width
    end = max(
      sum(last[name][i] for name, *_ in _PHASES)
      for i in range(len(last['client']))
    )
    handles['idle'] = here.barh(
      at,
      end - done,
      left=done,
      color='white',
      edgecolor='0.6',
      linewidth=0.4,
      height=0.8,
    )
    here.set_yticks(
      at,
      [f'{tier[last["client"][i]]} {last["client"][i]}' for i in order],
      fontsize=7,
    )
    here.set_ylim(len(order) - 0.4, -0.6)
    here.set_xlim(0, end)
    here.set_xlabel('simulated time in the round (s)')
    here.set_title(
      f'{naming.shorten(one.run.label)}, round {last["round"]}', fontsize=10
    )
    here.spines[['top', 'right']].set_visible(False)
  for here in grid.flat[len(runs) :]:
    here.set_visible(False)
  charts.legend(figure, handles)
  return [
    charts.Chart(
      'gantt',
      "A round's time by device",
      'What each device of the last recorded round does: receives the model, '
      'trains, sends its update, waits for the slowest. The order within a '
      'device is that of the cost model. Every panel has its own time axis. '
      f'First seed; at most {_DEVICES} devices.',
      figure,
    )
  ]
