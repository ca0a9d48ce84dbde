"""Chooses the best values of every label of a finished sweep.

    relief sweep compare --config.data.validation_subjects='(3,)' \\
        --workdir=runs/tune --sweep.hparams.client_lr=.02,.05,.1
    relief select runs/tune --by=f1_validation --out=values.json
    relief compare compare --config.values=values.json --workdir=runs/compare

The score of a candidate is the mean over its seeds and folds, in each of the
last `--last` evaluations. The file tells the criterion, the persons, and by
label the best values and every candidate with its score; of equal ones the
first of the sweep is taken, and a candidate with a diverged run never is. A
test score is refused unless `--allow_test`: what is chosen by it must not be
tested by it. `--config.values` of a comparison takes the file.
"""

import pathlib

from absl import flags

from relief_jax.campaign import choices
from relief_jax.cli import command
from relief_jax.scoring import metrics
from relief_jax.storage import records


def define() -> None:
  """Defines the flags."""
  flags.DEFINE_string(
    'by', 'f1_validation', 'the criterion, a score in metrics.jsonl'
  )
  flags.DEFINE_integer(
    'last', 1, 'evaluations at the end that it is averaged over'
  )
  command.define_path('out', None, 'the file of the values')
  flags.DEFINE_bool(
    'allow_test', False, 'lets --by be a test score, which is a leak'
  )
  flags.mark_flags_as_required(['out'])


def main(argv) -> int:
  """Returns the exit code (see `exit_codes`).

  Raises:
    InputError: not one folder, or as `choices.choose`.
  """
  given = flags.FLAGS
  folder = command.one_path(
    argv, 'relief select DIR --out=FILE', 'name the --workdir of the sweep'
  )
  out = pathlib.Path(given.out)
  found = choices.choose(folder, given.by, given.last, given.allow_test)
  records.write_json(out, found)
  for label, one in found['labels'].items():
    if one['values'] is None:
      print(f'{label}: no value, every candidate diverged')
      continue
    values = ' '.join(f'{k}={v}' for k, v in one['values'].items())
    ties = f', {len(one["tied"])} tied' if one['tied'] else ''
    print(
      f'{label}: {values} ({metrics.shown(found["by"], one["score"])}, best of '
      f'{len(one["candidates"])}{ties})'
    )
  if found['test_score']:
    print(
      f'warning: {found["by"]} is a test score: do not report test scores of '
      'runs with these values'
    )
  print(f'Wrote {out}')
  return 0
