"""What is told while a campaign runs, and when it ends."""

import heapq
import io

import pytest
import rich.console

from relief_jax.campaign import estimate, overview, pool
from relief_jax.storage import job_spec
from tests.support.campaigns import jobs


def test_the_live_view_tells_rate_best_and_failures(tmp_path):
  out = io.StringIO()
  found = jobs(tmp_path, seed='0:3')
  view = overview.Overview(rich.console.Console(file=out, width=200), found, 0)
  taken = {'event': 'take', 'fresh': True, 'waited': 1.0}
  view.event(found[0], taken)
  view.event(found[0], {'event': 'start', 'round': 0})
  view.event(found[0], {'event': 'compile', 'before': 8.21})
  assert 'run seed 0: compiling, 8.21 s the last time' in out.getvalue()
  assert 'ETA' not in view.state()
  view.event(found[0], {'event': 'update', 'round': 0, 'f1': 0.1})
  view.event(found[0], {'event': 'update', 'round': 10, 'f1': 0.5})
  view.event(found[0], {'event': 'end', 'status': 'complete'})
  view.event(found[1], taken | {'fresh': False})
  view.event(found[1], {'event': 'start', 'round': 0})
  view.event(found[1], {'event': 'end', 'status': 'failed'})
  assert 'best F1 50.0 % run seed 0' in view.state()
  assert 'ETA' in view.state() and '1 failed' in view.state()
  assert '[2/3] run seed 1: failed' in out.getvalue()


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('labels', [1, 2, 6])
@pytest.mark.parametrize(('compile_', 'each'), [(20.0, 0.1), (2.0, 1.0)])
def test_the_first_estimate_is_close(workers, labels, compile_, each):
  """Within a factor of 1.5, whatever compiling and rounds are to each other."""
  jobs = [
    job_spec.Job(str(m), s, f'{m}/{s}', {'rounds': 20, 'method': m})
    for m in range(labels)
    for s in range(3)
  ]
  now, told = 0.0, []
  view = estimate.Estimate(jobs, workers, clock=lambda: now)
  left = [list(some) for some in pool.by_structure(jobs)]
  new = list(left)
  free = [(0.0, i, []) for i in range(workers)]  # when, who, on what
  events = []
  while any(left):
    at, number, some = heapq.heappop(free)
    fresh = not some
    if fresh:  # a new structure, else help with the longest
      some = new.pop(0) if new else max(left, key=len)
    job = some.pop(0)
    at += 3.0 * fresh
    take = {'event': 'take', 'fresh': fresh, 'waited': 3.0 * fresh}
    events.append((at, job, take))
    at += 0.5 + compile_ * fresh
    for done in range(0, 21, 5):
      events.append((at, job, {'event': 'update', 'round': done}))
      at += 5 * each * (done < 20)
    events.append((at, job, {'event': 'end', 'status': 'complete'}))
    heapq.heappush(free, (at, number, some))
  events.sort(key=lambda one: one[0])
  last = events[-1][0]
  for at, job, message in events:
    now = at
    view.event(job, message)
    if (found := view.left()) is not None:
      told.append((last - now, found))
  real, found = told[0]
  assert real / 1.5 <= found <= 1.5 * real
  assert told[-1] == (0.0, 0.0)
