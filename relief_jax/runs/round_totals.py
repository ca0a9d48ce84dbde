"""Adds rounds up on the host, in float64, and finds non-finite values."""

from typing import Any

import numpy as np

from relief_jax.errors import Portable
from relief_jax.rounds.records import RoundInfo

# Means over rounds of what merging adapters told, `RoundInfo.extra`.
MERGES = ('merge_error', 'merge_dense')
TOTALS = ('sim_seconds', 'joules', 'up_bytes', 'down_bytes')


class Diverged(Portable, RuntimeError):
  """Raised when a loss or a parameter is no finite number any more.

  Attributes:
    round: the first one with such a loss; else the evaluation that found the
      parameter.
    group: name of the first group with a non-finite parameter, or ''.
  """

  def __init__(self, round_index: int, group: str, client: int | None):
    where = (
      f'in group {group!r}' if group else f'in the loss of client {client}'
    )
    super().__init__(
      f'diverged by round {round_index}: a non-finite number {where}. '
      'Usual cure: lower --config.hparams.client_lr, or leave such clients '
      'out with --config.nonfinite=drop'
    )
    self.round, self.group = round_index, group


class RoundTotals:
  """Adds up the costs of rounds, and statistics since the last evaluation.

  Attributes:
    totals: simulated seconds, joules and bytes of all rounds.
  """

  def __init__(self) -> None:
    """Starts without any round."""
    self.totals: dict[str, float] = dict.fromkeys(TOTALS, 0.0)
    self.begin()

  def begin(self) -> None:
    """Starts a new window: the statistics between two evaluations."""
    self._rounds, self._loss = 0, 0.0
    self._trained: Any = 0.0
    self._divergence: np.ndarray | None = None
    self._found: list[np.ndarray] = []
    self._dropped: int | None = None
    self._memory: float | None = None
    self._merges: dict[str, float] = {}
    self._server: float | None = None
    self._ages: list[np.ndarray] = []
    self._stale: int | None = None
    self._airtime: float | None = None
    self._lost: Any = 0.0
    self._asked: Any = 0.0
    self._online: dict[str, int] = {}

  def add(self, infos: RoundInfo) -> tuple[int, int] | None:
    """Adds rounds.

    Args:
      infos: numpy arrays with a leading axis of rounds, [R, K, ...].

    Returns:
      The first loss that is not finite, as the number of its round among
      these and its client; then nothing was added. None if there is none.
    """
    bad = np.argwhere(~np.isfinite(infos.loss))
    if len(bad):
      round_index, place = bad[0].tolist()
      return round_index, int(infos.client[round_index, place])
    seconds = np.asarray(infos.elapsed).astype(np.float64).sum()
    self.totals['sim_seconds'] += float(seconds)
    for key, values in (
      ('joules', infos.joules),
      ('up_bytes', infos.upload),
      ('down_bytes', infos.download),
    ):
      self.totals[key] += float(values.astype(np.float64).sum())
    count = len(infos.loss)
    working = infos.trained.any(-1)
    if 'dropped' in infos.extra:
      dropped = infos.extra['dropped']
      self._dropped = (self._dropped or 0) + int(dropped.sum())
      working &= ~dropped
    loss = np.where(working, infos.loss, 0).sum() / max(working.sum(), 1)
    self._rounds += count
    self._loss += float(loss) * count
    self._trained += infos.trained.mean(1).sum(0)
    self._divergence = np.asarray(infos.divergence[-1])
    if 'weight_factor' in infos.extra:
      factors = np.asarray(infos.extra['weight_factor'])
      self._found.append(factors[working].ravel())
    if 'memory' in infos.extra:
      most = float(infos.extra['memory'].max())
      self._memory = max(self._memory or 0.0, most)
    for key in MERGES:
      if key in infos.extra:
        total = float(infos.extra[key].astype(np.float64).sum())
        self._merges[key] = self._merges.get(key, 0.0) + total
    if 'server_joules' in infos.extra:
      spent = infos.extra['server_joules'].astype(np.float64).sum()
      self._server = (self._server or 0.0) + float(spent)
    if 'airtime' in infos.extra:
      air = infos.extra['airtime'].astype(np.float64).sum()
      self._airtime = (self._airtime or 0.0) + float(air)
      self._lost += infos.extra['stale'].sum(0)
      self._asked += infos.extra['asked'].sum(0)
    if 'staleness' in infos.extra:
      ages = np.asarray(infos.extra['staleness'])
      self._ages.append(ages[ages >= 0])
      lost = int(((ages < 0) & (infos.seconds > 0)).sum())
      self._stale = (self._stale or 0) + lost
    if infos.online is not None:
      for key in ('arrived_samples', 'correct', 'late'):
        value = getattr(infos.online, key)
        if value is not None:
          self._online[key] = self._online.get(key, 0) + int(value.sum())
    return None

  def window(self, names: tuple[str, ...]) -> dict[str, Any]:
    """Averages divergence, trained share, loss since the last evaluation.

    Where clients compute weights of their own, also the least, the mean and the
    largest of them, `found_weight`; where updates that are not finite are
    dropped, how many were, `dropped`; in a fleet with bounds of memory, the
    most that a device's training took, `memory_mb`; where adapters are merged,
    the relative error of their products, `merge_error`, and the share of layers
    that travel as dense matrices, `merge_dense`; in split training the energy
    of the server, `server_joules`; where the broadcast may be lost the seconds
    that it took, `airtime`, and the share of devices that did not decode a
    group, `stale_share`; where the server acts on arrivals, the mean
    and the largest staleness and the updates that were lost for it,
    `staleness`, `staleness_max` and `stale`. In an online world also
    `prequential`, the share of the arrived windows that the model classified
    correctly before training on them, and `late`, updates that the server did
    not wait for.

    Args:
      names: [G] of the groups.
    """
    count = self._rounds
    found = np.concatenate([np.empty(0), *self._found])
    spread = [found.min(), found.mean(), found.max()] if found.size else []
    return {
      'divergence': by_name(names, self._divergence),
      'trained_share': by_name(names, self._trained / count if count else None),
      'loss': self._loss / count if count else None,
      **({'found_weight': [float(v) for v in spread]} if spread else {}),
      **({} if self._dropped is None else {'dropped': self._dropped}),
      **({} if self._memory is None else {'memory_mb': self._memory / 1e6}),
      **{key: total / count for key, total in self._merges.items()},
      **({} if self._server is None else {'server_joules': self._server}),
      **self._broadcast(names),
      **self._staleness(),
      **self._seen(),
    }

  def _broadcast(self, names: tuple[str, ...]) -> dict[str, Any]:
    if self._airtime is None:
      return {}
    asked = np.maximum(self._asked, 1)
    shares = np.where(self._asked > 0, self._lost / asked, np.nan)
    return {'airtime': self._airtime, 'stale_share': by_name(names, shares)}

  def _staleness(self) -> dict[str, Any]:
    if self._stale is None:
      return {}
    ages = np.concatenate(self._ages)
    return {
      'staleness': float(ages.mean()) if ages.size else None,
      'staleness_max': int(ages.max()) if ages.size else None,
      'stale': self._stale,
    }

  def _seen(self) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if 'late' in self._online:
      found['late'] = self._online['late']
    if self._online.get('arrived_samples'):
      found['prequential'] = (
        self._online['correct'] / self._online['arrived_samples']
      )
    return found


def by_name(names, values) -> dict[str, float | None]:
  """Gives names -> floats; a number that is not finite becomes None (JSON)."""
  if values is None:
    return dict.fromkeys(names)
  return {
    n: float(v) if np.isfinite(v) else None
    for n, v in zip(names, values, strict=True)
  }
