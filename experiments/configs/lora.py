"""The LoRA family on text: how adapters of unequal ranks are merged.

relief compare lora --workdir=runs/lora --data_dir=DIR --workers=2
relief report runs/lora

A transformer over characters of Shakespeare's roles, its base trained on roles
that no device plays, adapters of rank 8 on q and v and a head that all train;
60 devices of three tiers, in the same local steps and at one rate. Budgeted
methods choose ranks under one deadline, the others have the full rank. Every
run records the error of its merge, which the report draws over rounds
(`merge_error`). FedSA-LoRA keeps models per device, and has no error.

Variants: `sensors` (DSADS, adapters of the embeddings too), `long` (four times
the local steps in a quarter of the rounds: merges that start again lose less),
`merges`, `smoke`.

`merges` is of the merges alone, in seconds, on made-up words that need no file:

relief compare lora:merges --workdir=runs/merges
relief report runs/merges

There `hetlora` has equal weights and prunes nothing, so that its error is that
of factors which are averaged apart, padded with zeros or, by the label
`hetlora_contributors`, over the devices that have the rank. Devices of the slow
tier have a lower rank.
"""

from relief_jax import algorithms
from relief_jax.campaign import comparison
from relief_jax.config import presets

METHODS = tuple(
  name
  for name, factory in sorted(algorithms.ALGORITHMS.items())
  if algorithms.facts(factory).adapters
)


def sensors(c):
  """Takes the people of DSADS in the place of text."""
  c.dataset, c.clients, c.data.width = 'dsads', 24, 125
  c.partition, c.data.split, c.data.public_subjects = (
    'contiguous',
    'subjects',
    1,
  )
  c.model.lora = ('embed', 'q', 'v')
  c.model.transformer.preset = 'sensor'


def long(c):
  """Lets devices train longer between merges, as many steps in all."""
  c.local_steps *= 4
  c.rounds //= 4


def merges(c):
  """Takes a dozen devices of made-up words, and few rounds."""
  c.dataset, c.synthetic.subjects = 'synthetic_text', 24
  c.clients, c.data.width, c.data.public_subjects = 12, 32, 6
  c.rounds, c.rounds_per_call, c.eval_every = 20, 2, 2
  c.local_steps, c.model.base_steps = 5, 100
  c.model.transformer.preset, c.deadline = 'tiny', '0.94*full'


def smoke(c):
  """Shrinks to two rounds of eight devices of made-up words, in seconds."""
  c.dataset = 'synthetic_text'
  c.clients, c.rounds, c.rounds_per_call, c.eval_every = 8, 2, 1, 1
  c.local_steps, c.batch, c.data.width = 2, 4, 16
  c.model.rank, c.model.base_steps, c.data.public_subjects = 2, 4, 1
  c.model.transformer.preset = 'tiny'


def labels() -> dict[str, dict]:
  """Maps each method, and ways of HetLoRA, to the keys of its run."""
  found: dict[str, dict] = {}
  for name in METHODS:
    options = algorithms.facts(name).rows
    tracked = {name: {'merge_error': True}} if 'merge_error' in options else {}
    found[name] = {'method': name, **tracked}
  own = {'merge_error': True, 'over': 'contributors', 'weights': 'equal'}
  found['hetlora_contributors'] = {'method': 'hetlora', 'hetlora': own}
  return found


def merged() -> dict[str, dict]:
  """Maps the ways of merging unequal ranks to the keys of a run."""
  apart = {'weights': 'equal', 'prune': 0.0}
  own = {
    'hetlora': ('hetlora', apart),
    'hetlora_contributors': ('hetlora', {**apart, 'over': 'contributors'}),
    **{name: (name, {}) for name in ('flexlora', 'flora', 'hsplitlora')},
  }
  return {
    label: {'method': name, name: {'merge_error': True, **keys}}
    for label, (name, keys) in own.items()
  }


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.dataset, c.clients, c.fleet = 'shakespeare', 60, 'three_tiers'
  c.partition, c.data.split, c.data.width = 'subject', 'official', 64
  c.data.own_share, c.data.public_subjects, c.target = 0.0, 60, 8.0
  c.backbone, c.model.lora = 'transformer', ('q', 'v')
  c.model.transformer.preset = 'char'
  c.rounds, c.rounds_per_call, c.eval_every = 100, 5, 5
  c.local_steps, c.batch, c.hparams.client_lr = 10, 16, 0.1
  # Ranks cost little time beside the base: just below this nobody slow fits.
  c.deadline = '0.97*full'
  presets.apply(c, arg, sensors=sensors, long=long, merges=merges, smoke=smoke)
  if 'merges' in (arg or '').split(','):
    return comparison.build(c, merged(), (0, 1, 2), 'flora')
  return comparison.build(c, labels(), (0, 1, 2), 'fedit')
