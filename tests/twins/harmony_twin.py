"""Harmony as loops over modalities, devices and their combinations."""

import numpy as np

from tests.twins import twin


def clusters(points, size) -> list[int]:
  """k-means of a few points [n, D], started as `parts/kmeans.py` does."""
  centres = [points.mean(0)]
  while len(centres) < (len(points) - 1) // size + 1:
    gaps = [min(np.square(p - c).sum() for c in centres) for p in points]
    centres.append(points[np.argmax(gaps)])
  for _ in range(100):
    place = [
      int(np.argmin([np.square(p - c).sum() for c in centres])) for p in points
    ]
    for j in set(place):
      centres[j] = np.mean(
        [p for p, i in zip(points, place, strict=True) if i == j], 0
      )
  return place


class HarmonyTwin(twin.Twin):
  """State: `alone` [M] and `own` [N] models, `distance` [N, M]."""

  def __init__(self, task, population, setting, seed=0):
    super().__init__(task, population, setting, seed)
    self.alone = [self.params] * len(task.modalities)
    self.own = [self.params] * self.clients
    self.distance = np.zeros((self.clients, len(task.modalities)))
    self.joined, self.fusing, self.every = set(), False, self.fleet
    share = setting.options.alone * self.hparams['rounds']
    self.begin = int(np.ceil(share - 1e-6))

  def modality(self, k) -> int:
    """Of parameter k, -1 for shared."""
    kind, *rest = k.split('/')
    shared = kind in ('bias', 'head')
    return -1 if shared else self.task.modalities.index(rest[0])

  def plan(self, number):
    """Owners of what is left of `fleet.owned` train and count."""
    there = (self.fleet.samples > 0) & self.fleet.owned.any(1)
    found = [self.access(n) if there[n] else set() for n in range(self.clients)]
    return found, found

  def backward(self, n, k, value, gradient):
    """Encoders learn at a rate of their own in the second stage."""
    if self.fusing and k.startswith('encoder'):
      rate = self.setting.options.encoder_lr
      return gradient * rate / self.hparams['client_lr']
    return gradient

  def both(self, number):
    """One round: losses, bytes up and down, FLOPs per sample, each [N]."""
    if number < self.begin:
      return self.first(number)
    return self.second(number)

  def first(self, number):
    found = []
    for m in range(len(self.alone)):
      only = np.arange(len(self.alone)) == m
      self.fleet = self.every.replace(owned=self.every.owned & only)
      self.params = self.alone[m]
      info = self.round(number)
      self.alone[m] = info.params
      flops = [self.spent(n, c) for n, c in enumerate(info.trained)]
      found.append((info.loss, info.upload, info.upload, flops))
    self.fleet = self.every
    for n in range(self.clients):
      owned = np.flatnonzero(self.fleet.owned[n])
      self.own[n] = {
        k: self.alone[m][k]
        if m >= 0
        else np.mean([self.alone[i][k] for i in owned], 0)
        for k, m in ((k, self.modality(k)) for k in self.params)
      }
    total = np.sum(found, 0)
    total[0] /= np.maximum((np.array(found)[:, 0] > 0).sum(0), 1)
    return total

  def second(self, number):
    self.fusing = True
    start = {
      k: self.alone[max(self.modality(k), 0)][k].copy() for k in self.params
    }
    found = np.zeros((4, self.clients))
    groups: dict[tuple, list] = {}
    for n in range(self.clients):
      owned = np.flatnonzero(self.fleet.owned[n])
      if len(owned) < 2 or not self.fleet.samples[n]:
        continue
      groups.setdefault(tuple(owned), []).append(n)
      trained = self.access(n)
      self.params = self.own[n]
      delta, found[0, n] = self.local(n, self.draw(number, n), trained)
      self.own[n] = {k: v + delta[k] for k, v in self.own[n].items()}
      for k, v in self.own[n].items():
        size = 4 * v.size * (self.group(k) in trained)
        sent = not k.startswith('encoder')
        found[1, n] += sent * size
        found[2, n] += (sent or n not in self.joined) * size
      found[1, n] += 4 * len(owned)
      found[3, n] = self.flops(n, trained)
      self.joined.add(n)
      for m in owned:
        a, b = (
          np.concatenate(
            [
              v.ravel()
              for k, v in model.items()
              if k.startswith('encoder') and self.modality(k) == m
            ]
          )
          for model in (self.own[n], start)
        )
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        self.distance[n, m] = 1 - cosine
    for owned, members in groups.items():
      points = self.distance[members]
      points = points / np.where(points.max(0) > 0, points.max(0), 1)
      place = clusters(points, self.setting.options.members)
      if number == self.begin:
        place = [0] * len(members)
      for j in set(place):
        those = [n for n, i in zip(members, place, strict=True) if i == j]
        for k in self.params:
          if k.startswith('encoder') or self.modality(k) not in (-1, *owned):
            continue
          mean = np.mean([self.own[n][k] for n in those], 0)
          for n in those:
            self.own[n] = {**self.own[n], k: mean}
    return found
