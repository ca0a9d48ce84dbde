"""Runs one simulation and writes its run directory.

config.json    the resolved config
metrics.jsonl  one line per evaluation
summary.json   how it ended and what came out
checkpoints/   the newest two (Orbax)
tb/            TensorBoard
"""

import contextlib
import math
import os
import pathlib
import signal
from collections.abc import Iterator

import ml_collections
import tensorboardX

from experiments import progress, records
from experiments.checkpoints import Checkpoints
from relief_jax import processes, simulate
from relief_jax.errors import InputError


class Stop:
  """Set by SIGINT and SIGTERM; a second signal acts as it always did."""

  requested = False

  def __init__(self):
    """Changes nothing until it is entered."""
    self._before: dict = {}

  def __enter__(self):
    for number in (signal.SIGINT, signal.SIGTERM):
      with contextlib.suppress(ValueError):  # not in the main thread
        self._before[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_):
    while self._before:
      signal.signal(*self._before.popitem())

  def _handle(self, number, frame):
    del number, frame
    self.requested = True
    self.__exit__()


def run(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  data_dir: str | None = None,
  resume: bool = False,
  reporter: progress.Quiet | None = None,
) -> str:
  """Runs a config to its end, or until it is told to stop.

  Args:
    config: of the run.
    workdir: its run directory.
    data_dir: where real data is looked for.
    resume: go on from the newest checkpoint; in a new directory, begin.
    reporter: shows the progress.

  Returns:
    The status: 'complete', 'interrupted' or 'diverged'.

  Of several processes all call this, and the first one alone touches the
  directory.

  Raises:
    PeerError: another process of the run refused or failed.
    InputError: bad config or data, a directory that already holds a run
      (without `resume`) or one of another config (with it).
    OSError: the directory cannot be written.
  """
  if 'methods' in config:
    raise InputError(
      'a comparison', 'the config of one run', 'use experiments.compare'
    )
  folder = pathlib.Path(workdir)
  reporter = reporter or progress.Quiet()
  config = config.copy_and_resolve_references()
  with processes.together():
    stored = _stored_config(folder, resume) if processes.is_main() else None
  stored = processes.share(stored)
  if stored:
    records.adopt(config, stored)
  simulation = simulate.Simulation(config, data_dir)
  if stored:
    difference = records.first_difference(simulation.config, stored)
    if difference:
      raise InputError(
        f'{folder} with {difference}',
        'the config that it was begun with',
        'use another --workdir, or take the change back',
      )
  with contextlib.ExitStack() as stack:
    checkpoints, done = None, ''
    with processes.together():
      if processes.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_claim(folder))
        checkpoints = stack.enter_context(Checkpoints(folder / 'checkpoints'))
        if not stored:
          records.write_json(folder / 'config.json', simulation.config)
        done = _finished(folder)
    done = processes.share(done)
    if done:
      return done
    _restore(simulation, folder, checkpoints)
    return _loop(simulation, folder, checkpoints, reporter)


def _stored_config(folder: pathlib.Path, resume: bool) -> dict | None:
  """The config of a begun run, None where there is none."""
  begun = [
    name
    for name in ('config.json', 'metrics.jsonl', 'summary.json', 'checkpoints')
    if (folder / name).exists()
  ]
  if folder.exists() and not folder.is_dir():
    raise InputError(f'the file {folder}', 'a folder', 'another --workdir')
  if begun and not resume:
    raise InputError(
      f'a run in {folder} ({", ".join(begun)})',
      'a new or empty --workdir',
      'add --resume to go on with it, or name another folder',
    )
  if not (folder / 'config.json').exists():
    if begun:
      raise InputError(
        f'{folder} without its config.json',
        'a run directory',
        'name another --workdir',
      )
    return None
  return records.read_json(folder / 'config.json')


def _finished(folder: pathlib.Path) -> str:
  """The status of a run that has nothing left to do, '' of any other."""
  path = folder / 'summary.json'
  if not path.exists():
    return ''
  status = records.read_json(path).get('status', '')
  return status if status in (records.COMPLETE, records.DIVERGED) else ''


@contextlib.contextmanager
def _claim(folder: pathlib.Path) -> Iterator[None]:
  """Keeps a second process out of the directory while this one writes."""
  try:
    import fcntl
  except ImportError:  # no such locks on this system
    yield
    return
  handle = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    os.close(handle)
    raise InputError(
      f'{folder} in use by another process',
      'a directory of its own for every run',
      'wait for that process, or name another --workdir',
    ) from error
  try:
    yield
  finally:
    os.close(handle)


def _restore(simulation, folder: pathlib.Path, checkpoints) -> None:
  """Puts the simulation where the newest checkpoint was made."""
  metrics = folder / 'metrics.jsonl'
  like, found, history = simulation.snapshot(), None, None
  with processes.together():
    if checkpoints and checkpoints.newest is None:
      records.truncate_metrics(metrics, -1)
    elif checkpoints:
      history = records.truncate_metrics(metrics, checkpoints.newest)
      found = checkpoints.restore(like)
  history = processes.share(history)
  if history is not None:
    simulation.restore(processes.share_arrays(like, found), history)


def _loop(simulation, folder, checkpoints, reporter) -> str:
  """Evaluates, records and saves until the end."""
  config, main = simulation.config, processes.is_main()
  saved = simulation.round
  status, failure = records.COMPLETE, {}
  reporter.start(title(simulation), config.rounds, simulation.round)
  with Stop() as stop, _board(folder, simulation.round) as board:
    try:
      reporter.note(str(simulation.choice))
      reporter.note(str(simulation.prepare()))
      while not simulation.done:
        record = simulation.advance()
        if main:
          records.append_line(folder / 'metrics.jsonl', record)
          write_scalars(board, record)
        reporter.update(record)
        # A signal may have reached one process only.
        requested = any(processes.gather(stop.requested))
        due = 0 < config.checkpoint_every <= simulation.round - saved
        if due or requested or simulation.done:
          if main:
            checkpoints.save(simulation.round, simulation.snapshot())
          saved = simulation.round
        if requested and not simulation.done:
          status = records.INTERRUPTED
          break
    except simulate.Diverged as error:
      status = records.DIVERGED
      failure = {
        'diverged_round': error.round,
        'diverged_group': error.group,
        'reason': str(error),
      }
  summary = {
    'schema': records.SCHEMA,
    'status': status,
    'round': simulation.round,
    **simulation.summary(),
    **failure,
    **records.environment(),
  }
  if main:
    records.write_json(folder / 'summary.json', summary)
  reporter.finish(summary)
  return status


@contextlib.contextmanager
def _board(folder: pathlib.Path, done: int):
  """TensorBoard's writer, in the process that writes."""
  if not processes.is_main():
    yield None
    return
  with contextlib.closing(
    tensorboardX.SummaryWriter(
      str(folder / 'tb'), purge_step=done + 1, flush_secs=10
    )
  ) as board:
    yield board


def title(simulation) -> str:
  """What is run, in a few words."""
  config, facts = simulation.config, simulation.description
  tiers = ', '.join(f'{n} {k}' for k, n in facts['tiers'].items())
  return (
    f'{config.method} on {config.dataset}, {config.backbone}, '
    f'seed {config.seed}: {facts["clients_per_round"]} of '
    f'{facts["clients"]} clients a round ({tiers}), speed ratio '
    f'{facts["speed_ratio"]:.0f}, deadline {facts["deadline"][0]:.3g}, '
    f'{facts["parameters"]:,} parameters, {facts["layout"]}'
  )


def write_scalars(board, record: dict) -> None:
  """Writes the finite numbers of an evaluation to TensorBoard."""
  plain = records.flatten(records.clean(record))
  for key, value in plain.items():
    if isinstance(value, bool) or not isinstance(value, int | float):
      continue
    if key != 'round' and math.isfinite(value):
      board.add_scalar(
        key.replace('.', '/', 1).replace('+', '_'), value, record['round']
      )
  board.flush()
