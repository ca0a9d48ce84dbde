"""Runs many points of one config and sets them side by side.

    relief sweep relief --sweep.hparams.client_lr=.03,.1 --sweep.seed=0:5
    relief sweep relief --workdir=runs/sweep --sweep.method=fedavg,relief

Flags --sweep.KEY=VALUES make a grid, `--trials=N` draws at random, and a
config's own `sweep(add)` is taken too: see `campaign/points.py`. Every
point is a run directory DIR/LABEL/seed_K. The label names all that the point
sets but the seed, so a mean is over seeds; the method comes last, after a
slash, and methods of equal values are compared with each other. Where folds
and seeds are swept, runs are DIR/LABEL/fold_K_seed_S, and the mean over folds
is one of means over seeds.

A comparison is swept too: every point is run for all of its labels and seeds,
as DIR/POINT/LABEL/seed_K. `relief select` then finds the best of each.

Points that differ in values only (seeds, rates, deadlines) share a compiled
program: one after the other on CPU, `--together` at a time in one vmap on an
accelerator. Others run in processes of their own, `--workers` at a time.

DIR/manifest.json lists the points and how each stands. The same command goes
on where it was stopped, also after a crash or SIGKILL; more values or seeds
may be added. `--shard=2/4` runs the second of four parts; `--dry` prints
the resolved config and what would be run, `--dry_run` the names of the points
alone. A finished point leaves its numbers but no
model, unless `--keep_models`; its config.json makes the same model again. At
the end there are the tables and figures of a comparison;
`relief report DIR` makes the whole report.
"""

from absl import flags
from ml_collections.config_flags import get_config_filename

from relief_jax import config as config_lib
from relief_jax.campaign import campaign, execution, points
from relief_jax.cli import command, config_flags, plan
from relief_jax.errors import InputError

SWEPT: dict[str, str] = {}  # filled from the command line before flags are


def define() -> None:
  """Defines the flags."""
  command.define_config()
  command.define_path(
    'workdir', None, 'one run directory per point; default: runs/NAME-sweep'
  )
  command.define_data_dir()
  flags.DEFINE_integer(
    'workers', 0, 'processes; 0: one per core, or one per GPU', lower_bound=0
  )
  flags.DEFINE_integer(
    'together',
    0,
    'points in one program; 0: one on CPU, 16 on a GPU or TPU',
    lower_bound=0,
  )
  flags.DEFINE_integer('trials', 0, 'random draws', lower_bound=0)
  flags.DEFINE_integer('trial_seed', 0, 'of the draws', lower_bound=0)
  flags.DEFINE_string('shard', '1/1', 'i/n: part i of n, from 1')
  flags.DEFINE_string(
    'baseline',
    '',
    'label, within a group, that others are compared with; default: fedavg, '
    "or a comparison's own, else the first",
  )
  flags.DEFINE_bool(
    'keep_models', False, 'finished points leave a checkpoint of their model'
  )
  flags.DEFINE_bool('dry_run', False, 'lists the points, runs none')
  plan.define()


def main(argv) -> int:
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: bad flags, or a folder with other runs in it.
  """
  del argv
  given = flags.FLAGS
  config = command.config()
  path = get_config_filename(given['config'])
  found = points.expand(
    points.collect(points.own_sweep(path)),
    points.swept(config, SWEPT),
    given.trials,
    given.trial_seed,
  )
  if given['trial_seed'].present and not given.trials:
    raise InputError(
      f'--trial_seed={given.trial_seed}, of draws that there are none of',
      '--trial_seed with --trials',
      'add --trials, or leave it out',
    )
  if found == [{}]:
    raise InputError(
      'nothing to sweep',
      f'flags such as {points.PREFIX}seed=0:5, or a config with sweep(add)',
      'write relief run for a single run',
    )
  folder = command.workdir('-sweep')
  if 'methods' in config:
    made = campaign.of_comparison(
      config, folder, given.data_dir, found, given.keep_models, given.baseline
    )
  else:
    made = campaign.of_sweep(
      config, found, folder, given.data_dir, given.keep_models, given.baseline
    )
    config_lib.prune(config)  # its points know what they are of
  config_flags.taken(config, made.jobs)
  part = points.parse_shard(given.shard)
  mine = made.jobs[part[0] - 1 :: part[1]]
  if given.dry_run:
    for job in mine:
      print(job.name)
    return 0
  if given.dry:
    plan.show(plan.of_campaign(config, mine, folder, given.workers))
    return 0
  return execution.run(made, folder, given.workers, part, given.together)
