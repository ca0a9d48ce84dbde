"""Fine-tuning on devices that are too small: adapters and split learning.

relief compare finetune --workdir=runs/finetune --data_dir=DIR --workers=1
relief compare finetune:text --workdir=runs/finetune_text --data_dir=DIR

A small transformer with adapters of low rank, its base trained on a person
that no device has; ten devices of four unequal tiers. Memory is bounded:
devices of the tier `low` cannot train the model at any rank, and sit out; of a
split model they hold the first layer. Whoever chooses ranks has one deadline,
at which `mid` affords rank 2. Labels:

- `NAME` is a method of adapters or of split training, as configured by default
  but for the split. `splitfed`, `splitfed_v2`, `psl_merged` (devices' parts are
  averaged) and `flexp_sfl` take the deepest that a device's memory holds; where
  parts are not averaged who holds all would be alone, so that `psl` as
  `gapsl_style` and `ho_sfl` splits behind the first layer.
- `hsplitlora` has adapters and a split; `split_hetlora` is the same with its
  factors averaged apart, as the port of HetLoRA to split training does.
- `ho_sfl_frozen` leaves the devices' part as it is: what probes must beat.
- `local_only`: nobody sends anything.
- of the variant `hasfl`, which has the planner alone: `hasfl_fixed`,
  `hasfl_fixed_batch`, `hasfl_fixed_split` and `hasfl_random`, whose choices of
  batch and split are taken away.

Each method has a learning rate of its own, chosen on a person who is on no
device and not tested, of texts on four authors like that, of a seed that
nothing else is done with:

relief sweep finetune:tune --workdir=runs/tune --data_dir=DIR --workers=1 \
    --sweep.hparams.client_lr=.01,.03,.1,.3,1
relief select runs/tune --by=f1_validation --out=values.json
relief compare finetune --workdir=runs/finetune --data_dir=DIR \
    --config.values_file=values.json

What was chosen lies beside this file: `finetune_har.json`, and of the variants
`words` and `hasfl` `finetune_words.json` and `finetune_hasfl.json`.

Variants: `har` (the default: four folds of MHEALTH), `text` (Shakespeare's
roles), `words` (made-up ones), `hasfl`, `tune`, `smoke`.
"""

import pathlib

from relief_jax import algorithms
from relief_jax.campaign import comparison, worlds
from relief_jax.config import presets

# Persons that are tested: 1 and 6, 2 and 7, 4 and 9, 5 and 10. In fold 2 it
# would be 3 and 8, and on 8 rates are chosen.
FOLDS, VALIDATION = (0, 1, 3, 4), (8,)
SEEDS = (1, 2, 3, 4, 5)  # of text
AUTHORS = ('author 25', 'author 26', 'author 27', 'author 28')
RATE = 0.05
TRACKED = {'merge_error': True}


# At batch 16 training takes 1.5 to 1.7 MB, by sensors and rank, and the first
# layer .4 to .5: `low` holds no rank and `mid` all but the largest. Of text it
# takes 3.9 MB at any rank, and two layers 1.7: `mid` holds every rank.
SENSORS = worlds.bounded(0.6, 1.58, 4, 8)
CHARACTERS = worlds.bounded(1.8, 4.05, 8, 8)
_HERE = pathlib.Path(__file__).as_posix()


def adapted() -> dict[str, dict]:
  """Maps every method of adapters to the keys of its run."""
  found: dict[str, dict] = {}
  for name, factory in sorted(algorithms.ALGORITHMS.items()):
    facts = algorithms.facts(factory)
    if facts.adapters:
      tracked = 'merge_error' in facts.rows
      found[name] = {'method': name}
      if tracked:
        found[name][name] = TRACKED
  return found


def split(layers: int) -> dict[str, dict]:
  """Maps every method of split training to the keys of its run.

  Args:
    layers: that the smallest device holds, of methods with one split for all.
  """
  deepest, first = {'rule': 'deepest'}, {'layers': layers}
  own = {
    'splitfed': ('splitfed', deepest),
    'splitfed_v2': ('splitfed_v2', deepest),
    'psl': ('psl', first),
    'psl_merged': ('psl', {**deepest, 'merge': True}),
    'gapsl_style': ('gapsl_style', first),
    'ho_sfl': ('ho_sfl', first),
    'ho_sfl_frozen': ('ho_sfl', {**first, 'probe': 'none'}),
    'flexp_sfl': ('flexp_sfl', deepest),
    'hsplitlora': ('hsplitlora', {**deepest, **TRACKED}),
    'split_hetlora': (
      'hsplitlora',
      {**deepest, **TRACKED, 'merge': 'apart'},
    ),
  }
  return {
    label: {'method': name, name: keys} for label, (name, keys) in own.items()
  }


def planned(layers: int) -> dict[str, dict]:
  """Maps HASFL's planner, and it without its choices, to the keys of a run.

  Args:
    layers: as in `split`.
  """
  fixed = {'rule': 'fixed', 'layers': layers}
  own = {
    '': {},
    '_fixed': {**fixed, 'batches': 'fixed'},
    '_fixed_batch': {'batches': 'fixed'},
    '_fixed_split': fixed,
    '_random': {'rule': 'random', 'batches': 'random'},
  }
  return {
    f'hasfl{end or "_style"}': {'method': 'hasfl_style', 'hasfl_style': keys}
    for end, keys in own.items()
  }


def text(c) -> None:
  """Takes the roles of Shakespeare's plays; the base is trained on others."""
  c.dataset, c.fleet = 'shakespeare', f'{_HERE}:CHARACTERS'
  c.partition, c.data.split, c.data.width = 'subject', 'official', 32
  c.data.channels, c.data.folds, c.data.own_share = '', 0, 0.0
  c.data.validation_subjects, c.data.public_subjects = (), 60
  c.model.lora, c.target_f1, c.target = ('q', 'v'), 0.0, 10.0
  c.deadline = '0.4*full'


def words(c) -> None:
  """Takes made-up words, whose text is there without a file."""
  text(c)
  c.dataset, c.synthetic.subjects = 'synthetic_text', 28
  c.data.public_subjects, c.data.validation_subjects = 8, AUTHORS


def hasfl(c) -> None:
  """Tests every round, to see when a target is reached."""
  c.rounds_per_call = c.eval_every = 1


def tune(c) -> None:
  """Shortens runs, of the first fold alone, to choose a rate."""
  c.rounds //= 2


def smoke(c) -> None:
  """Shrinks to a fold of the small world, or to a few words, in seconds."""
  characters = c.fleet.endswith('CHARACTERS')
  presets.smoke(c)
  c.synthetic.subjects, c.data.channels = 6, ''
  if characters:
    c.dataset, c.data.width, c.data.public_subjects = 'synthetic_text', 16, 1
    c.clients, c.synthetic.subjects = 8, 12
    c.data.validation_subjects = ()
  else:
    c.data.folds, c.data.validation_subjects = 2, (6,)


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.dataset, c.data.folds = 'mhealth', 5
  c.data.channels = worlds.MHEALTH['mag']
  c.data.width, c.data.stride = 128, 64
  c.data.split, c.data.validation_subjects = 'folds', VALIDATION
  c.clients, c.fleet = 10, f'{_HERE}:SENSORS'
  c.rounds, c.rounds_per_call, c.eval_every = 40, 20, 40
  c.backbone, c.model.groups = 'transformer', 'layer'
  c.model.transformer.preset, c.model.lora = 'tiny', ('embed', 'q', 'v')
  c.model.rank, c.model.base_steps = 8, 300
  c.batch, c.local_steps = 16, 5
  c.over_budget, c.deadline = 'sit_out', '0.73*full'
  c.hparams.client_lr = RATE
  presets.apply(
    c,
    arg,
    har=lambda c: None,
    text=text,
    words=words,
    hasfl=hasfl,
    tune=tune,
    smoke=smoke,
  )
  names = set((arg or '').split(','))
  characters = bool(names & {'text', 'words'})
  # Of text the embeddings have no adapters: one block is the least that trains.
  layers = 2 if characters else 1
  labels = {**adapted(), **split(layers), **planned(layers)}
  labels['local_only'] = {'method': 'local_only'}
  if characters:  # it compares gradients class by class
    del labels['gapsl_style']
  if 'hasfl' in names:
    labels = planned(layers)
  else:
    labels = {k: v for k, v in labels.items() if not k.startswith('hasfl_')}
    labels['hasfl_style'] = planned(layers)['hasfl_style']
  # Of text rates are chosen on seed 0, and nothing else is done with it.
  seeds = SEEDS if characters else FOLDS
  short = (0,) if characters else FOLDS[:1]
  return comparison.build(
    c,
    labels,
    short if names & {'tune', 'smoke'} else seeds,
    'hasfl_fixed' if 'hasfl' in names else 'fedit',
    'seed' if characters else 'data.fold',
  )
