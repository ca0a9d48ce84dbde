"""The clients of a world in one figure and a few lines."""

import pathlib
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker
from numpy.typing import NDArray

from relief_jax.datasets.windows import Windows
from relief_jax.report import palette
from relief_jax.scoring import targets
from relief_jax.storage import naming
from relief_jax.world.client_data import Clients

# Columns that can still be told apart on a page.
_COLUMNS = 240
# Black late: bars of it look like a frame.
_COLOURS = (*palette.COLOURS[1:], palette.BLACK, palette.GREY)
# Kinds of devices; more are drawn by speed.
_KINDS = 8


class View(NamedTuple):
  """Holds the data that is drawn.

  Attributes:
    dataset: its title.
    table: [N, C] windows of each class, or of each quarter of what is
      predicted; of texts one column.
    classes: [C] names of these.
    subjects: [N] persons on each device.
    owned: [N, M] bool.
    modalities: [M] names.
    kind: [N] number of the kind of device.
    kinds: names.
    speed: [N] FLOP/s.
    unused: training windows that are on no device.
    shared: windows that are on more than one.
  """

  dataset: str
  table: NDArray
  classes: tuple[str, ...]
  subjects: NDArray
  owned: NDArray
  modalities: tuple[str, ...]
  kind: NDArray
  kinds: tuple[str, ...]
  speed: NDArray
  unused: int
  shared: int


def view(found: Clients, tiers: tuple[str, ...]) -> View:
  """Counts the windows, classes, persons and sensors of the devices.

  Args:
    found: from `client_data.build_clients`.
    tiers: names of the fleet's tiers. More than eight are replaced by eight
      classes of speed.
  """
  sizes = np.array([len(part) for part in found.parts])
  clients = len(sizes)
  rows = np.concatenate(found.parts)
  client = np.repeat(np.arange(clients), sizes)
  kinds_of_windows, classes = _sorts(found.data)
  num = len(classes)
  table = np.bincount(
    client * num + kinds_of_windows[rows], minlength=clients * num
  )
  subject = np.unique(found.data.subject, return_inverse=True)[1]
  pairs = np.unique(client * (subject.max() + 1) + subject[rows])
  holders = np.bincount(rows, minlength=len(found.data.y))[found.split.train]
  speed = np.asarray(found.fleet.speed, np.float64)
  kind, kinds = np.asarray(found.fleet.tier), tiers
  if len(tiers) > _KINDS:
    edges = np.unique(np.quantile(speed, np.linspace(0, 1, _KINDS + 1)[1:-1]))
    used, kind = np.unique(np.searchsorted(edges, speed), return_inverse=True)
    kinds = tuple(f'speed {i + 1}' for i in range(len(used)))
  return View(
    dataset=found.data.title,
    table=table.reshape(clients, num),
    classes=classes,
    subjects=np.bincount(pairs // (subject.max() + 1), minlength=clients),
    owned=np.asarray(found.fleet.owned),
    modalities=tuple(found.data.x),
    kind=kind,
    kinds=kinds,
    speed=speed,
    unused=int((holders == 0).sum()),
    shared=int((holders > 1).sum()),
  )


def _sorts(data: Windows) -> tuple[NDArray, tuple[str, ...]]:
  """Sorts windows: by class, by quarter of the first number; texts not.

  Returns:
    [windows] ints, and names of the sorts.
  """
  if data.targets == targets.CLASSES:
    return data.y, data.classes
  if data.targets == targets.TOKENS:
    return np.zeros(len(data.y), int), ('texts',)
  values = data.y[:, 0]
  edges = np.unique(np.quantile(values, (0.25, 0.5, 0.75)))
  ends = [f'{edge:.3g}' for edge in edges]
  names = (f'below {ends[0]}', *(f'from {end}' for end in ends))
  return np.searchsorted(edges, values, 'right'), names


def _spread(values: NDArray) -> str:
  low, middle, high = np.min(values), np.median(values), np.max(values)
  return f'{low:g} to {high:g}, half of them at most {middle:g}'


def _speeds(speed: NDArray) -> str:
  low, high = speed.min() / 1e9, speed.max() / 1e9
  text = f'{low:.3g}' if high / low < 1.005 else f'{low:.3g}-{high:.3g}'
  return f'{text} GFLOP/s'


def summary(found: View) -> str:
  """Describes the figure in words, for a terminal."""
  size = found.table.sum(1)
  used = size[size > 0]
  share = found.table[size > 0] / used[:, None]
  lines = [
    f'{found.dataset}: {len(size):,} devices, {size.sum():,} windows on them '
    f'({found.unused:,} on none, {found.shared:,} on several)',
    f'windows per device: {_spread(size)}',
    *(
      [
        f'classes per device: {_spread((found.table > 0).sum(1))} of '
        f'{len(found.classes)}; the commonest has {share.max(1).mean():.0%} of '
        'the windows on average'
      ]
      if len(found.classes) > 1
      else []
    ),
    f'persons per device: {_spread(found.subjects)}',
  ]
  if len(np.unique(found.speed)) > 1 and len(found.modalities) > 1:
    sensors = found.owned.sum(1)
    if np.ptp(sensors):
      rank = np.unique(found.speed, return_inverse=True)[1]
      r = np.corrcoef(rank, sensors)[0, 1]
      lines.append(f'correlation of speed rank and number of sensors: {r:.2f}')
  wide = max(map(len, found.kinds))
  for t, name in enumerate(found.kinds):
    own = found.kind == t
    if not own.any():
      lines.append(f'{name:{wide}}  no device')
      continue
    sensors = ', '.join(
      f'{m} {found.owned[own, i].mean():.0%}'
      for i, m in enumerate(found.modalities)
    )
    lines.append(
      f'{name:{wide}}  {own.sum():>7,} devices  {_speeds(found.speed[own])}  '
      f'{sensors}'
    )
  return '\n'.join(lines)


def draw(found: View, path: pathlib.Path) -> None:
  """Writes the figure as PNG.

  Args:
    found: from `view`.
    path: of the file.

  Raises:
    OSError: it cannot be written.
  """
  clients, num = found.table.shape
  at = np.arange(clients)
  if clients > _COLUMNS:
    at = np.linspace(0, clients - 1, _COLUMNS).round().astype(int)
  rows = len(found.modalities)
  heights = (
    max(2.2, 0.19 * min(num, 40)),
    1.9,
    max(1.1, 0.3 * rows + 0.5),
  )
  figure, axes = palette.subplots(
    3,
    1,
    figsize=(10, sum(heights) + 1.6),
    height_ratios=heights,
  )
  _classes(axes[0], found, at)
  _windows(axes[1], found)
  _sensors(axes[2], found)
  figure.suptitle(
    f'{found.dataset}: {clients:,} devices, {found.table.sum():,} windows',
    fontsize=11,
  )
  figure.savefig(path, dpi=130)


def _classes(here, found: View, at: NDArray) -> None:
  """Draws the share of each class [C] in the windows of the devices `at`."""
  part = found.table[at]
  share = part / np.maximum(part.sum(1, keepdims=True), 1)
  image = here.imshow(
    share.T,
    aspect='auto',
    interpolation='nearest',
    cmap='cividis',
    vmin=0,
    # An even share stays in the middle of the scale.
    vmax=min(1.0, max(share.max(), 2 / len(found.classes))),
  )
  here.figure.colorbar(
    image,
    ax=here,
    pad=0.01,
    format=ticker.PercentFormatter(1),
    label="share of the device's windows",
  )
  num = len(found.classes)
  every = -(-num // 40)
  here.set_yticks(
    range(0, num, every),
    [naming.shorten(c, 30) for c in found.classes[::every]],
  )
  here.tick_params(axis='y', labelsize=7)
  round_ones = ticker.MaxNLocator(9, integer=True).tick_values(0, at[-1])
  labels = [int(t) for t in round_ones if t <= at[-1]]
  places = np.interp(labels, at, np.arange(len(at)))
  here.set_xticks(places, [f'{label:,}' for label in labels])
  text = 'device'
  if len(at) < len(found.table):
    text += f' ({len(at)} of {len(found.table):,}, evenly spaced)'
  here.set_xlabel(text)
  here.set_title('Classes', loc='left', fontsize=10)


def _windows(here, found: View) -> None:
  """Draws the windows of every device, from most to fewest, a line per kind."""
  size = found.table.sum(1)
  few = len(size) <= 60
  drawn: dict[str, Any] = {}
  order = np.argsort(-size, kind='stable')
  if few:
    for t, name in enumerate(found.kinds):
      own = np.flatnonzero(found.kind[order] == t)
      drawn[name] = here.bar(
        own, size[order][own], color=_COLOURS[t % len(_COLOURS)], width=0.8
      )
    here.set_xlabel('device, from most to fewest windows')
    here.set_xticks(range(len(order)), [f'{n}' for n in order])
    here.tick_params(axis='x', labelsize=9 if len(order) <= 30 else 6)
  else:
    kinds = len(found.kinds)
    for t, name in enumerate(found.kinds):
      own = np.sort(size[found.kind == t])[::-1]
      if len(own):
        share = (np.arange(len(own)) + 0.5) / len(own)
        (drawn[name],) = here.step(
          share,
          own,
          where='mid',
          color=_COLOURS[t % len(_COLOURS)],
          linewidth=1.3 + 0.9 * (kinds - 1 - t),  # equal curves stay visible
        )
    here.xaxis.set_major_formatter(ticker.PercentFormatter(1))
    here.set_xlim(0, 1)
    here.set_xlabel('devices of a kind that have at least so many windows')
    here.grid(alpha=0.25, linewidth=0.6)
  if size.max() > 30 * max(size.min(), 1):
    palette.logarithmic_y(here)
  else:
    here.set_ylim(bottom=0)
    here.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
  here.set_ylabel('windows')
  here.spines[['top', 'right']].set_visible(False)
  # Both fall from left to right: the upper right is free.
  palette.legend(
    here,
    list(drawn.values()),
    list(drawn),
    loc='upper right',
    ncols=4,
    frameon=False,
    fontsize=8,
  )
  here.set_title('Windows per device', loc='left', fontsize=10)


def _sensors(here, found: View) -> None:
  """Draws how many devices of a kind carry a sensor."""
  kinds, num = len(found.kinds), len(found.modalities)
  total = np.bincount(found.kind, minlength=kinds)
  own = np.zeros((num, kinds), int)
  np.add.at(own.T, found.kind, found.owned)
  share = own / np.maximum(total, 1)
  here.imshow(share, aspect='auto', cmap='Blues', vmin=0, vmax=1.25)
  small = 9 if num <= 12 else 7
  for i in range(num):
    for t in range(kinds):
      here.text(
        t,
        i,
        f'{own[i, t]:,}' if own[i, t] else '–',
        ha='center',
        va='center',
        fontsize=small,
        color='white' if share[i, t] > 0.7 else 'black',
      )
  here.set_yticks(range(num), [naming.shorten(m, 30) for m in found.modalities])
  labels = [
    f'{name}\n{total[t]:,} devices'
    + (f'\n{_speeds(found.speed[found.kind == t])}' if total[t] else '')
    for t, name in enumerate(found.kinds)
  ]
  here.set_xticks(range(kinds), labels, fontsize=8 if kinds < 6 else 7)
  here.tick_params(length=0)
  here.set_title('Devices that carry a sensor', loc='left', fontsize=10)
