"""Rules of selection as plain Python loops over devices, by client id."""

import math

import numpy as np


class Twin:
  """Remembers devices in a dict, id -> what their last round showed."""

  def __init__(self, **values):
    self.values, self.seen = values, {}

  def learn(self, number, told):
    """Adds a round: {id: (utility, seconds, joules)} of those asked."""
    for name, (utility, seconds, joules) in told.items():
      old = self.seen.get(name, {'picks': 0, 'spent': 0.0})
      self.seen[name] = {
        'picks': old['picks'] + 1,
        'last': number,
        'utility': utility,
        'seconds': seconds,
        'joules': joules,
        'spent': old['spent'] + joules,
      }

  def of(self, name, field, before):
    return self.seen[name][field] if name in self.seen else before


def by(score, names):
  """The names, largest scores first, of equal ones the least."""
  return sorted(names, key=lambda n: (-score[n], n))


def at_rank(values, share):
  """The element of rank share * count, as float32 counts."""
  values = sorted(values)
  rank = int(np.float32(share) * np.float32(len(values)))
  return values[min(rank, len(values) - 1)]


class RoundRobin(Twin):
  def pick(self, number, devices, size):
    del number
    turns = {n: -self.of(n, 'picks', 0) for n in devices}
    return set(by(turns, devices)[:size])


class Oort(Twin):
  """`devices`: {id: (windows, expected seconds, expected joules, noise)}."""

  def pick(self, number, devices, size):
    if not devices:
      return set()
    v, round_ = self.values, number + 1
    seconds = {n: self.of(n, 'seconds', d[1]) for n, d in devices.items()}
    preferred = at_rank(seconds.values(), v['pace'])
    slow = {
      n: (preferred / t) ** v['penalty'] if t > preferred else 1.0
      for n, t in seconds.items()
    }
    often = {
      n
      for n in devices
      if v['most_picks'] and self.of(n, 'picks', 0) > v['most_picks']
    }
    known = [n for n in devices if n in self.seen and n not in often]
    new = [n for n in devices if n not in self.seen]
    told = [
      self.seen[n]['utility'] for n in known if self.seen[n]['utility'] > 0
    ]
    score = {}
    for n in known:
      scaled = 0.0
      if told:
        low, high = 0.999 * min(told), max(told)
        cut = min(self.seen[n]['utility'], at_rank(told, v['clip']))
        scaled = max((cut - low) / max(high - low, 1e-4), 0.0)
      bonus = math.sqrt(0.1 * math.log(round_) / (self.seen[n]['last'] + 1))
      score[n] = (scaled + bonus) * slow[n]
    share = max(
      v['exploration'] * v['exploration_decay'] ** round_,
      v['exploration_least'],
    )
    exploit = min(max(size - int(size * share), size - len(new)), len(known))
    explore = min(size - exploit, len(new))
    drawn = {}
    if exploit:
      limit = v['cutoff'] * score[by(score, known)[exploit - 1]]
      drawn = self.drawn(
        {n: score[n] for n in known if score[n] >= limit}, devices, exploit
      )
    found = set(drawn)
    weights = {n: devices[n][0] * slow[n] for n in new}
    found |= set(self.drawn(weights, devices, explore))
    picks = {n: -self.seen[n]['picks'] for n in often}
    return found | set(by(picks, often)[: size - len(found)])

  def drawn(self, weights, devices, count):
    value = {
      n: math.log(max(w, 1e-20)) + devices[n][3] for n, w in weights.items()
    }
    return by(value, value)[:count]


class FedJoule(Twin):
  def pick(self, number, devices, size):
    v = self.values
    joules = {n: self.of(n, 'joules', d[2]) for n, d in devices.items()}
    best = max((s['utility'] for s in self.seen.values()), default=0.0)
    rate = {
      n: self.of(n, 'utility', best or 1.0) / joules[n]
      for n in devices
      if not v['battery']
      or self.of(n, 'spent', 0.0) + joules[n] <= v['battery']
    }
    spent = sum(s['spent'] for s in self.seen.values())
    left = math.inf
    if v['joules']:
      left = (v['joules'] - spent) / max(v['rounds'] - number, 1)
    found, taken = set(), 0.0
    for n in by(rate, rate)[:size]:
      if taken + joules[n] <= left:
        found.add(n)
        taken += joules[n]
    return found
