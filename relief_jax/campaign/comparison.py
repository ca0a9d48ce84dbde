"""The config of a comparison: a run's, and the labels and seeds beside it."""

from relief_jax import config as config_lib
from relief_jax.config import registries
from relief_jax.keys import (
  LARGEST_SEED,
  flatten,
  name,
  names,
  text,
  wholes,
)
from relief_jax.storage import records

# At the deadline `tight` no rule has a choice: a device affords its columns or
# more than them. At 1.75 times that a mid-tier device affords one encoder.
MID = {'method': 'relief', 'deadline': '1.75*tight'}

# Keys beside those of the runs, as rows of `relief_jax.config`.
ROWS = {
  'labels': names((), 'of the methods, in the order of the tables'),
  'seeds': wholes(
    (0, 1, 2), 0, 'one run of each label per seed or fold', most=LARGEST_SEED
  ),
  'baseline': text('fedavg', 'label, within a group, others are compared with'),
  'only': text(
    '', 'labels to run, patterns joined by commas; empty: all of them'
  ),
  'vary': name('seed', ('seed', 'data.fold'), 'what `seeds` are numbers of'),
  'repeats': wholes((), 0, 'seeds of every fold', most=LARGEST_SEED),
  'values_file': text('', 'what `relief select` chose for every label'),
}
OWN_KEYS = ('methods', *ROWS)
_NEWER = ('vary', 'repeats', 'values_file')  # older comparisons lack them


def with_defaults(values):
  """Adds the keys that a comparison stored by an older version lacks.

  Args:
    values: of a comparison; those of a single run are not touched.
  """
  newer = {key: ROWS[key].default for key in _NEWER}
  return {**newer, **values} if 'methods' in values else values


def build(c, methods, seeds, baseline='fedavg', vary='seed', repeats=()):
  """Turns a run's config into one of several runs.

  Args:
    c: what all runs share.
    methods: label -> nested keys in which its runs differ. The part of a
      label before its last slash is its group: a group has a table section
      and figures of its own, and is compared with its own baseline.
    seeds: one run per label and seed; () for all folds.
    baseline: label, within a group, that the others are compared with.
    vary: what the numbers in `seeds` are, the key of a run that they are
      written to: 'seed', or 'data.fold' for a mean over folds.
    repeats: with folds, the seeds that each of them is run with: a fold's
      value is the mean over them; () for the config's own seed.
  """
  methods = {label: _met(keys) for label, keys in methods.items()}
  for keys in methods.values():
    config_lib.complete(c, keys.get('method', c.method))
  with c.unlocked():
    c.methods = methods
    c.labels = tuple(methods)  # their order
    c.seeds = tuple(seeds)
    c.baseline = baseline
    c.only = ''  # labels to run, patterns joined by commas; '' for all
    c.vary = vary
    c.repeats = tuple(repeats)
    c.values_file = ''  # file of `relief select`, applied after `methods`
  return c


def _met(keys):
  """Finds what a label's keys name outside of the package; it may add keys."""
  found = registries.meet(flatten(keys))
  return {**keys, **{k: found[k] for k in found.keys() & keys.keys()}}


def from_dict(values):
  """Builds the config of a comparison from its JSON form.

  Raises:
    InputError: an unknown key or a value of another type.
  """
  values = with_defaults(dict(values))
  own = {k: values.pop(k) for k in OWN_KEYS}
  for keys in own['methods'].values():
    _met(keys)
  c = records.config_from_dict(values)
  methods = {label: own['methods'][label] for label in own['labels']}
  build(c, methods, own['seeds'], own['baseline'], own['vary'], own['repeats'])
  c.only, c.values_file = own['only'], own['values_file']
  return c
