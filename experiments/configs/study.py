"""The large study: backbones x presets x deadlines x methods on DSADS.

relief compare study --workdir=runs/study --data_dir=DIR

relief compare study:subjects12 --workdir=runs/study12 --data_dir=DIR

24 clients, 60 rounds, seeds 0 to 2, evaluation every five rounds. Methods
without a budget do not depend on the deadline and run once. At `tight` and at
`full` every selection rule picks the same groups (a device affords either its
columns or everything), so the rules are compared at a deadline in between,
where a mid-tier device affords one of its two encoders. In LoRA mode nothing
but columns trains, hence no rule has a choice. The variant `subjects12` holds
out persons 1 and 2 and keeps the main four methods. Also `smoke`, `cnn` and
`lora` (one backbone), `synthetic`.
"""

from relief_jax.algorithms import relief
from relief_jax.campaign import comparison
from relief_jax.config import presets

PLAIN = {
  'fedavg': {'method': 'fedavg'},
  'fedavg_skip': {'method': 'fedavg', 'fill': 'skip'},
  'fedprox': {'method': 'fedprox'},
  'cohort_mean': {'method': 'cohort_mean'},
  'local_only': {'method': 'local_only'},
  'centralized': {'method': 'centralized'},
  'relief_tight': {'method': 'relief', 'deadline': 'tight'},
  'relief_full': {'method': 'relief', 'deadline': 'full'},
}
# RELIEF's own options, one at a time, with the `paper` preset.
ABLATIONS = {
  'relief_rising': {
    'method': 'relief',
    'deadline': 'tight',
    'deadline_end': 'full',
  },
  'relief_shrinkage': {
    'method': 'relief',
    'deadline': 'full',
    'relief': {'shrinkage': True},
  },
  **{
    f'relief_{rule}_mid': {
      'method': 'relief',
      'deadline': '1.75*tight',
      'relief': {'rule': rule},
    }
    for rule in relief.RULES
  },
}
MAIN = ('fedavg', 'fedavg_skip', 'cohort_mean', 'relief_tight', 'relief_full')
PRESETS = {
  'paper': {'modality_dropout': 0.0, 'fusion_norm': False},
  'best': {'modality_dropout': 0.3, 'fusion_norm': True},
}


def labels(backbones=('cnn', 'lora'), chosen=None):
  """Maps every label of the study, `backbone/preset/method`, to its keys."""
  found = {}
  for backbone in backbones:
    for preset, options in PRESETS.items():
      shared = {
        'backbone': backbone,
        'hparams': {'client_lr': presets.RATES[backbone]},
        **options,
      }
      methods = dict(PLAIN)
      if (backbone, preset) == ('cnn', 'paper'):
        methods |= ABLATIONS
      for name, keys in methods.items():
        if not chosen or name in chosen:
          found[f'{backbone}/{preset}/{name}'] = {**shared, **keys}
  return found


def get_config(arg=None):
  """Builds the config of the study, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  chosen, backbones, seeds = None, ('cnn', 'lora'), (0, 1, 2)
  names = [name for name in (arg or '').split(',') if name]
  if 'subjects12' in names:
    chosen = MAIN
  if 'cnn' in names or 'lora' in names:
    backbones = tuple(b for b in backbones if b in names)
  if 'smoke' in names:
    seeds = (0,)
  presets.apply(
    c,
    arg,
    subjects12=lambda c: c.data.update(test_subjects=(1, 2)),
    cnn=lambda c: None,
    lora=lambda c: None,
    synthetic=lambda c: c.update(dataset='synthetic'),
  )
  return comparison.build(c, labels(backbones, chosen), seeds)
