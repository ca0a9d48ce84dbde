"""Computes what a run would cost, without training.

    relief costs fedavg --config.clients=131072 --config.reuse=20 --out=c.csv

Simulated time, energy and bytes of every round, the same as in the training run
of the same seed; for methods that decide without looking at the model. Prints
sums by tier; `--out` is a .csv with a line a round, `--devices` one with a line
a device.
"""

import io
import pathlib

import numpy as np
import pandas as pd
import rich.box
import rich.table
from absl import flags

from relief_jax import datasets, simulate
from relief_jax.cli import command
from relief_jax.errors import InputError
from relief_jax.storage import progress, records


def define() -> None:
  """Defines the flags."""
  command.define_config()
  command.define_path('out', None, 'a .csv with a line for each round')
  command.define_path('devices', None, 'a .csv with a line for each device')
  command.define_data_dir()


def main(argv) -> int:
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: a bad config or data, a method that needs training to decide.
    StorageError: a file cannot be written.
  """
  del argv
  given = flags.FLAGS
  for flag, path in (('out', given.out), ('devices', given.devices)):
    if path:
      _check(flag, path)
  found = simulate.costs(command.config(), given.data_dir)
  print(datasets.remark([found.dataset]))
  progress.console().print(_table(found))
  print(_sums(found))
  if given.out:
    lines = pd.DataFrame(found.rounds)
    lines.insert(0, 'round', np.arange(1, len(lines) + 1))
    _write(lines, given.out)
  if given.devices:
    lines = pd.DataFrame(found.devices)
    lines.insert(0, 'tier', [found.tiers[t] for t in found.tier])
    lines.insert(0, 'device', np.arange(len(lines)))
    _write(lines, given.devices)
  return 0


def _check(flag: str, path: str) -> None:
  """Refuses a path that nothing can be written to, before the work."""
  found = pathlib.Path(path)
  if found.suffix != '.csv' or not found.parent.is_dir():
    raise InputError(
      f'--{flag}={path}',
      'a name that ends in .csv, in a folder that is there',
      'correct it',
    )


def _write(lines: pd.DataFrame, path: str) -> None:
  text = io.StringIO()
  lines.to_csv(text, index=False)
  with records.storing(pathlib.Path(path)):
    records.write_bytes(pathlib.Path(path), text.getvalue().encode())
  print(f'wrote {path}')


def _table(found: simulate.Costs) -> rich.table.Table:
  """Makes the table of means over the devices of a tier."""
  shown = rich.table.Table(box=rich.box.SIMPLE)
  shown.add_column('tier')
  for name in ('devices', 'rounds each', 'busy s', 'J', 'MB up', 'MB down'):
    shown.add_column(name, justify='right')
  for place, name in enumerate(found.tiers):
    mine = found.tier == place
    if not mine.any():
      continue
    mean = {k: float(v[mine].mean()) for k, v in found.devices.items()}
    shown.add_row(
      name,
      f'{mine.sum():,}',
      f'{mean["rounds"]:,.1f}',
      f'{mean["seconds"]:,.3g}',
      f'{mean["joules"]:,.3g}',
      f'{mean["up_bytes"] / 1e6:,.3g}',
      f'{mean["down_bytes"] / 1e6:,.3g}',
    )
  return shown


def _sums(found: simulate.Costs) -> str:
  """Gives the line of sums over rounds and devices."""
  sums = {k: float(v.sum()) for k, v in found.rounds.items()}
  wall = found.wall_seconds
  return (
    f'{len(found.rounds["seconds"]):,} rounds take '
    f'{progress.duration(sums["seconds"])} of simulated time, '
    f'{sums["joules"]:,.4g} J, {sums["up_bytes"] / 1e6:,.4g} MB up and '
    f'{sums["down_bytes"] / 1e6:,.4g} MB down. Computed in '
    f'{wall["run"]:.1f} s, after {wall["setup"]:.1f} s for the devices and '
    f'{wall["compile"]:.1f} s to compile'
  )
