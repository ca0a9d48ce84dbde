"""Runs many points of one config and sets them side by side.

python -m experiments.sweep --config=experiments/configs/relief.py \
    --workdir=runs/sweep --sweep.hparams.client_lr=.03,.1 --sweep.seed=0:5 \
    --sweep.method=fedavg,relief [--config.rounds=20 ...] [--data_dir=DIR]

Flags `--sweep.KEY=VALUES` make a grid, `--trials=N` draws at random, and a
config's own `sweep(add)` is taken too: see `experiments/points.py`. Every
point is a run directory DIR/LABEL/seed_K. The label names all that the point
sets but the seed, so a mean is over seeds; the method comes last, after a
slash, and methods of equal values are compared with each other. Where folds
and seeds are swept, runs are DIR/LABEL/fold_K_seed_S, and the mean over folds
is one of means over seeds.

A comparison is swept too: every point is run for all of its labels and seeds,
as DIR/POINT/LABEL/seed_K. `experiments.select` then finds the best of each.

Points that differ in values only (seeds, rates, deadlines) share a compiled
program: one after the other on CPU, `--together` at a time in one vmap on an
accelerator. Others run in processes of their own, `--workers` at a time.

DIR/manifest.json lists the points and how each stands. The same command goes
on where it was stopped, also after a crash or SIGKILL; more values or seeds
may be added. `--shard=2/4` runs the second of four parts (see slurm.md);
`--dry_run` only lists the points. A finished point leaves its numbers but no
model, unless `--keep_models`; its config.json makes the same model again. At
the end there are the tables and figures of a comparison;
`python -m experiments.report DIR` makes the whole report.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from experiments import (
  campaign,
  choices,
  command,
  comparison_jobs,
  points,
  pool,
  sweep_jobs,
)
from relief_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'a config file, NAME.py[:variant] or a config.json'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'one run directory per point')
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'where real data is')
_WORKERS = flags.DEFINE_integer(
  'workers', 0, 'processes; 0: one per core, or one per GPU'
)
_TOGETHER = flags.DEFINE_integer(
  'together', 0, 'points in one program; 0: one on CPU, 16 on a GPU or TPU'
)
_TRIALS = flags.DEFINE_integer('trials', 0, 'random draws')
_TRIAL_SEED = flags.DEFINE_integer('trial_seed', 0, 'of the draws')
_SHARD = flags.DEFINE_string('shard', '1/1', 'i/n: part i of n, from 1')
_BASELINE = flags.DEFINE_string(
  'baseline',
  '',
  'label that others are compared with; default: fedavg where methods are '
  'swept, else the first',
)
_KEEP_MODELS = flags.DEFINE_bool(
  'keep_models', False, 'finished points leave a checkpoint of their model'
)
_DRY_RUN = flags.DEFINE_bool('dry_run', False, 'lists the points, runs none')

_SWEPT: dict[str, str] = {}  # filled from the command line before flags are


def main(argv) -> int:
  """Returns the exit code (see `command`).

  Raises:
    InputError: bad flags, or a folder with other runs in it.
  """
  del argv
  config = _CONFIG.value
  path = config_flags.get_config_filename(flags.FLAGS['config'])
  found = points.expand(
    points.collect(points.own_sweep(path)),
    points.swept(config, _SWEPT),
    _TRIALS.value,
    _TRIAL_SEED.value,
  )
  if found == [{}]:
    raise InputError(
      'nothing to sweep',
      f'flags such as {points.PREFIX}seed=0:5, or a config with sweep(add)',
      'use experiments.main for a single run',
    )
  folder = pathlib.Path(str(_WORKDIR.value))
  comparison = 'methods' in config
  if comparison:
    jobs = comparison_jobs.expand(
      config, folder, _DATA_DIR.value, found, _KEEP_MODELS.value
    )
  else:
    jobs = sweep_jobs.jobs_of(
      config, found, folder, _DATA_DIR.value, _KEEP_MODELS.value
    )
  part = sweep_jobs.parse_shard(_SHARD.value)
  if _DRY_RUN.value:
    for job in jobs[part[0] - 1 :: part[1]]:
      print(job.name)
    return 0
  asked = _BASELINE.value or (config.baseline if comparison else '')
  vary = config.vary if comparison else sweep_jobs.vary_of(found)
  return campaign.Campaign(
    jobs,
    folder,
    config,
    sweep_jobs.baseline(jobs, asked),
    pool.over(vary) + 's',
    part,
    _TOGETHER.value,
    choices.note(config.values_file, config.labels) if comparison else '',
  ).run(_WORKERS.value)


if __name__ == '__main__':
  flags.mark_flags_as_required(['config', 'workdir'])
  command.launch(main, _SWEPT)
