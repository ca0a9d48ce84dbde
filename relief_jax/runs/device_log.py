"""Logs single devices: the blocks each trained, the seconds of its round.

Kept on the host between two evaluations, for a few hundred devices at most:
where a fleet is larger, for that many of them at even distances. Ours.
"""

from typing import Any

import numpy as np

from relief_jax.rounds.records import RoundInfo
from relief_jax.task import STEP
from relief_jax.types import Fleet

MOST = 256


class DeviceLog:
  """Logs the devices of a run, from evaluation to evaluation."""

  def __init__(self, fleet: Fleet, most: int = MOST):
    """Chooses the devices.

    Args:
      fleet: of all.
      most: devices that are logged.
    """
    clients = len(fleet.id)
    self._ids = np.unique(
      np.linspace(0, clients - 1, min(clients, most)).astype(int)
    )
    self._place = np.full(clients, -1)
    self._place[self._ids] = np.arange(len(self._ids))
    links = (fleet.uplink, fleet.downlink)
    self._uplink, self._downlink = (np.asarray(v, float) for v in links)
    self._owned, self._tier = np.asarray(fleet.owned), np.asarray(fleet.tier)
    self.begin()

  def describe(self, modalities, tiers) -> dict[str, Any]:
    """Describes the logged devices: their ids, tiers and sensors.

    Args:
      modalities: [M] names.
      tiers: names of the tiers.
    """
    return {
      'client': self._ids.tolist(),
      'tier': [tiers[t] for t in self._tier[self._ids]],
      'owned': [
        '+'.join(m for m, on in zip(modalities, row, strict=True) if on)
        for row in self._owned[self._ids]
      ],
    }

  def begin(self) -> None:
    """Starts a new window."""
    self._rounds = np.zeros(len(self._ids), int)
    self._trained: Any = 0
    self._dropped: np.ndarray | None = None
    self._last: dict[str, Any] | None = None
    self._step: dict[str, Any] | None = None

  def add(self, infos: RoundInfo, done: int) -> None:
    """Adds rounds.

    Args:
      infos: numpy arrays, [R, K, ...].
      done: rounds before them.
    """
    place = self._place[np.maximum(infos.client, 0)]
    round_index, at = np.nonzero((place >= 0) & (infos.seconds > 0))
    who = place[round_index, at]
    np.add.at(self._rounds, who, 1)
    trained = np.zeros((len(self._ids), infos.trained.shape[-1]), int)
    np.add.at(trained, who, infos.trained[round_index, at].astype(int))
    self._trained = self._trained + trained
    if 'dropped' in infos.extra:
      if self._dropped is None:
        self._dropped = np.zeros(len(self._ids), int)
      np.add.at(
        self._dropped, who, infos.extra['dropped'][round_index, at].astype(int)
      )
    shown = at[round_index == len(infos.client) - 1]
    rate = None
    if 'downlink' in infos.extra:
      rate = np.asarray(infos.extra['downlink'][-1][shown], float)
    self._last = self._round(
      {
        k: np.asarray(v[-1][shown])
        for k, v in infos._asdict().items()
        if k in ('client', 'seconds', 'upload', 'download')
      },
      done + len(infos.client),
      infos.online and np.asarray(infos.online.transfer[-1][shown], float),
      rate,
    )
    if 'steps' in infos.extra:
      steps = np.asarray(infos.extra['steps'][-1][shown], float)
      sent = (infos.upload[-1][shown], infos.download[-1][shown])
      self._step = self._of_a_step(steps, *sent)

  def _round(
    self, found: dict[str, np.ndarray], round_index: int, transfer, rate
  ):
    """Splits a round's seconds into download, compute, upload (costs.py).

    Args:
      found: of the round.
      round_index: of it.
      transfer: [n, 2] seconds of sending and receiving, None where links are as
        the data sheet says.
      rate: [n] bit/s of a broadcast; None: the device's own.
    """
    who = found['client']
    if transfer is None:
      own = self._downlink[who] if rate is None else rate
      down = 8 * found['download'] / own
      up = 8 * found['upload'] / self._uplink[who]
    else:
      up, down = transfer.T
    compute = np.maximum(found['seconds'] - up - down, 0)
    return {
      'round': round_index,
      'client': who.tolist(),
      'download': down.tolist(),
      'compute': compute.tolist(),
      'upload': up.tolist(),
    }

  def _of_a_step(self, steps, upload, download) -> dict[str, Any]:
    """Splits the last round of devices that train with a server.

    Args:
      steps: [n, 7], `task.STEP`.
      upload: [n] bytes.
      download: [n] bytes.
    """
    found = dict(zip(STEP, steps.T, strict=True))
    total, last = (download, upload), self._last
    assert last is not None  # of the same round
    for name, whole, inside, bytes_of in zip(
      ('receive', 'send'),
      ('download', 'upload'),
      ('down', 'up'),
      total,
      strict=True,
    ):
      share = found.pop(inside) / np.maximum(bytes_of, 1)
      found[name] = np.array(last[whole]) * np.clip(1 - share, 0, 1)
    return {name: value.tolist() for name, value in found.items()}

  def window(self, names: tuple[str, ...]) -> dict[str, Any]:
    """Counts rounds and trained groups of each device since `begin`.

    Args:
      names: [G] of the groups.

    Returns:
      `rounds` [n], `trained` group -> [n] and `last`, the seconds of the last
      round of the window by download, compute, upload (None before any round).
      Where devices train with a server step by step, also `step`, the seconds
      of one step of that round (`task.STEP`), and what it takes a device to
      `receive` and `send` its part of the model. Where updates that are not
      finite are dropped, also `dropped` [n], in how many rounds it was so.
    """
    trained = np.broadcast_to(self._trained, (len(self._ids), len(names)))
    return {
      'rounds': self._rounds.tolist(),
      'trained': dict(zip(names, trained.T.tolist(), strict=True)),
      'last': self._last,
      **({} if self._dropped is None else {'dropped': self._dropped.tolist()}),
      **({} if self._step is None else {'step': self._step}),
    }

  def pick(self, values: np.ndarray) -> list[float | None]:
    """Takes the values of the logged devices, [n].

    Args:
      values: [N], of all devices; NaN becomes None.
    """
    found = values[self._ids].tolist()
    return [None if value != value else value for value in found]
