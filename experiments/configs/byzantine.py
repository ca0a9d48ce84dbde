"""Byzantine clients, and what helps: FedAvg and RELIEF on DSADS.

relief compare byzantine --workdir=runs/byzantine --data_dir=DIR

The 24 devices of the leaderboard for 25 rounds, seeds 0 and 1; five of them
(20 %) send no numbers (`nan`) or their update with the sign flipped, at three
times its length (`flip`). A label is what the liars do and what the server
does; a method's own `clean` run is the baseline of its section. FedAvg is
filled and late, RELIEF under the leaderboard's deadline. A policy that lets
the run end at once (`nan` under the plain mean) has no row; that under
`flip` may end so, too, and then the command's exit code is 1.
Also `smoke`, `synthetic`.
"""

from relief_jax.campaign import comparison
from relief_jax.config import presets

SEEDS = (0, 1)
SHARE = 0.2
# About the shortest of the first rounds' updates, whose median is 0.6.
CLIP = 0.5
FAULTS: dict[str, dict] = {
  'clean': {},
  'nan': {'nonfinite': 'drop', 'faults': {'share': SHARE, 'kind': 'nan'}},
  'flip': {'faults': {'share': SHARE, 'kind': 'flip', 'scale': 3.0}},
}
POLICIES: dict[str, dict] = {
  '': {},
  'clip': {'hparams': {'clip_norm': CLIP}},
  'median': {'mean': 'median'},
  'trimmed': {'mean': 'trimmed', 'trim': 0.25},
}
METHODS: dict[str, dict] = {
  'fedavg': {'method': 'fedavg'},
  'relief': comparison.MID,
}


def labels() -> dict[str, dict]:
  """Maps labels to keys of runs; NaN updates are dropped and nothing else."""
  found = {}
  for method, own in METHODS.items():
    for fault, faults in FAULTS.items():
      for policy, keys in POLICIES.items():
        if fault == 'nan' and policy:
          continue
        name = '_'.join(filter(None, (fault, policy)))
        found[f'{method}/{name}'] = {**own, **faults, **keys}
  return found


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.rounds = 25
  presets.apply(c, arg, synthetic=lambda c: c.update(dataset='synthetic'))
  seeds = (0,) if 'smoke' in (arg or '').split(',') else SEEDS
  return comparison.build(c, labels(), seeds, baseline='clean')
