"""The transformer on sensors, in full and with adapters, by three methods.

relief compare transformer --workdir=runs/transformer --data_dir=DIR

relief compare transformer:central --workdir=runs/transformer_central \
    --data_dir=DIR

relief compare transformer:mhealth,folds,central --workdir=runs/folds \
    --data_dir=DIR

Eight people of DSADS, two of them held out and, for adapters, one to pretrain
the frozen base on; 24 devices. Labels are `full/METHOD` and `lora/METHOD`, each
group compared with its own FedAvg. The variant `mhealth` takes that data set,
`central` trains on the pooled windows of all training persons, every sensor on,
for an epoch a round; `folds` tests on every person once, two at a time. Also
the variants of `presets`.
"""

from relief_jax.campaign import comparison
from relief_jax.config import presets

# Whoever trains an embedding passes the gradient through all blocks: at the
# deadline `tight` everybody does. Below it slow devices choose among the upper
# blocks, above it there is hardly a choice.
METHODS = {
  'fedavg': {'method': 'fedavg'},
  'cohort_mean': {'method': 'cohort_mean'},
  'relief': {'method': 'relief', 'deadline': '0.8*tight'},
}
LORA = {'model': {'lora': ('embed', 'q', 'v')}}
CENTRAL = {'method': 'centralized'}


def central(c):
  """Puts all data in one place, with every sensor, for an epoch a round."""
  c.clients, c.fleet, c.local_epochs = 1, 'uniform', 1
  c.rounds, c.rounds_per_call, c.eval_every = 20, 2, 2


def mhealth(c):
  """Takes the ten people of MHEALTH."""
  c.dataset, c.data.test_subjects = 'mhealth', (9, 10)
  c.data.folds = 5 if c.data.folds else 0


def folds(c):
  """Tests on two people at a time, so that everybody is tested on once."""
  c.data.split, c.data.folds = 'folds', 5 if c.dataset == 'mhealth' else 4


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.backbone = 'transformer'
  presets.apply(c, arg, central=central, mhealth=mhealth, folds=folds)
  names = (arg or '').split(',')
  alone, folded = 'central' in names, 'folds' in names
  methods = {'centralized': CENTRAL} if alone else METHODS
  labels = {
    f'{form}/{name}': {**keys, **own}
    for form, own in (('full', {}), ('lora', LORA))
    for name, keys in methods.items()
  }
  return comparison.build(
    c,
    labels,
    () if folded else (0,),
    next(iter(methods)),
    'data.fold' if folded else 'seed',
  )
