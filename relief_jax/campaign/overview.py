"""All runs of a campaign at once: a live bar, or a line per finished run."""

import time
from collections.abc import Sequence

import rich.console
import rich.progress

from relief_jax.campaign import estimate
from relief_jax.scoring import metrics
from relief_jax.storage import job_spec, progress, records


class Overview:
  """Shows the progress and speed of all runs, the best one and failures."""

  def __init__(
    self,
    console: rich.console.Console,
    left: Sequence[job_spec.Job],
    done: int,
    workers: int = 1,
  ):
    """Prepares the display.

    Args:
      console: to draw on.
      left: jobs to do.
      done: how many have ended already.
      workers: processes that share them.
    """
    self._estimate = estimate.Estimate(left, workers)
    self._console, self._live = console, console.is_terminal
    self._total, self._ended = done + len(left), done
    self._before = done
    self._at: dict[str, int] = {}
    self._from: dict[str, int] = {}
    self._rounds = sum(job.config['rounds'] for job in left)
    self._started = time.monotonic()
    self._failed = 0
    self._best: tuple[metrics.Metric, float, str] | None = None
    self._bar = rich.progress.Progress(
      rich.progress.TextColumn('{task.description}', markup=False),
      rich.progress.BarColumn(),
      rich.progress.TextColumn('{task.fields[now]}', markup=False),
      console=console,
      disable=not self._live,
    )
    self._task = self._bar.add_task('', total=self._rounds, now='')
    self._show('')

  def __enter__(self):
    self._bar.start()
    return self

  def __exit__(self, *_):
    self._bar.stop()

  def event(self, job: job_spec.Job, message: dict) -> None:
    """Shows a message of a worker."""
    name = job.name
    self._estimate.event(job, message)
    if message['event'] == 'take':
      return
    if message['event'] == 'compile':
      self._compiling(name, message['before'])
      return
    if message['event'] == 'start':
      self._from[job.workdir] = message['round']
    if message['event'] != 'end':
      self._at[job.workdir] = message['round']
      metric = metrics.of(message)
      value = message.get(metric.name)
      if value is None:
        self._show(name)
        return
      if not self._best or metric.best((value, self._best[1])) == value:
        self._best = metric, value, name
      self._show(f'{name} {metric.short} {metric.text(value)}')
      return
    status = message['status']
    if status not in (records.COMPLETE, records.INTERRUPTED):
      self._failed += 1
    self._ended += 1
    if status == records.COMPLETE:
      self._at[job.workdir] = job.config['rounds']
    else:  # it will not run the rest
      self._rounds -= job.config['rounds'] - self._at.get(job.workdir, 0)
    if not self._live or status != records.COMPLETE:
      self._console.print(
        f'[{self._ended}/{self._total}] {name}: {status} ({self.state()})',
        soft_wrap=True,
      )
    self._show(name)

  def _compiling(self, name: str, before: float | None) -> None:
    """Says that a run waits for the compiler."""
    text = f'{name}: {progress.compiling(before)}'
    if not self._live:
      self._console.print(text, soft_wrap=True)
    self._show(text)

  def state(self) -> str:
    """Describes the rates, the time left, the best so far and failures."""
    taken = max(time.monotonic() - self._started, 1e-9)
    here = sum(at - self._from.get(w, 0) for w, at in self._at.items())
    left = self._estimate.left()
    parts = [
      f'{here / taken:.3g} rounds/s',
      f'{60 * (self._ended - self._before) / taken:.3g} runs/min',
    ]
    if left is not None:
      parts.append(f'ETA {progress.duration(round(left))}')
    if self._best:
      metric, value, name = self._best
      parts.append(f'best {metric.short} {metric.text(value)} {name}')
    if self._failed:
      parts.append(f'{self._failed} failed')
    return ', '.join(parts)

  def _show(self, now: str) -> None:
    self._bar.update(
      self._task,
      completed=sum(self._at.values()),
      total=self._rounds,
      description=f'runs {self._ended}/{self._total}',
      now=f'{self.state()}  {now}',
    )
