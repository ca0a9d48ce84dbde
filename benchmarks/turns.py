"""Cases in processes of their own that take turns.

Every process sets its case up once and then times some rounds whenever it is
asked to, up the list of cases and down again: a machine that is slow for a
while is slow for all of them, and ratios are of the same turn.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import common

Visit = dict[str, Any]  # {'seconds': of every timed round, other facts}


def serve(visit: Callable[[], Visit]) -> None:
  """A case's side: prints what a visit found for every line that is read."""
  for _ in sys.stdin:
    common.emit(visit())


def visit_all(
  name: str, cases: list[dict[str, Any]], turns: int
) -> list[list[list[Visit]]]:
  """The asking side: [case][turn][visit]; of the last case one visit a turn.

  Args:
    name: of the script whose process serves.
    cases: flags of each, at least one.
    turns: up the list and down again.

  Raises:
    RuntimeError: a process ended.
  """
  jobs = [common.start(name, stdin=subprocess.PIPE, **case) for case in cases]
  try:
    found: list[list[list[Visit]]] = [[] for _ in jobs]
    for _ in range(turns):
      for kept in found:
        kept.append([])
      up = list(range(len(jobs)))
      for number in up + up[-2::-1]:
        found[number][-1].append(_ask(jobs[number], cases[number]))
    return found
  finally:
    for job in jobs:
      job.kill()
      job.communicate()


def _ask(job: subprocess.Popen, case: dict[str, Any]) -> Visit:
  assert job.stdin and job.stdout
  try:
    job.stdin.write('\n')
    job.stdin.flush()
  except BrokenPipeError:
    pass  # It ended; so does its output.
  for line in job.stdout:
    if line.startswith('{'):  # Libraries print to the same stream.
      return json.loads(line)
  raise RuntimeError(f'the process of {case} ended: see above')


def summary(
  turns: list[list[Visit]], firsts: list[list[Visit]], work: float
) -> dict[str, Any]:
  """The facts of the last visit, and times over all of them.

  Args:
    turns: visits of the case in every turn.
    firsts: those of the case that it is held against.
    work: of the case over that case's: a ratio of 1 is time as its work.

  Returns:
    Also `over_first`: the median over the turns of the ratio of their times
    per unit of work, and `over_first_range`.
  """
  seconds = [s for visits in turns for v in visits for s in v['seconds']]
  ratios = [
    _mean(ours) / _mean(theirs) / work
    for ours, theirs in zip(turns, firsts, strict=True)
  ]
  return {
    **{k: v for k, v in turns[-1][-1].items() if k != 'seconds'},
    'turns': len(turns),
    'rounds_timed': len(seconds),
    'min_seconds': min(seconds),
    'median_seconds': statistics.median(seconds),
    'over_first': statistics.median(ratios),
    'over_first_range': [min(ratios), max(ratios)],
  }


def _mean(visits: list[Visit]) -> float:
  return statistics.mean(statistics.median(v['seconds']) for v in visits)
