"""Private updates: what noise of three sizes costs, on DSADS.

relief compare private --workdir=runs/private --data_dir=DIR

200 devices of which 50 are drawn in each of 20 rounds, seeds 0 to 2, a model of
3,500 parameters, since the norm of the noise grows with the root of their
number. Labels: `plain` has neither clip nor noise, `none` a clip to 0.5, the
others also noise by the server with multipliers 0.5, 1 and 2. Epsilon at delta
1e-5 is in each run's summary.json.
Also `smoke`, `synthetic`.
"""

from relief_jax.campaign import comparison
from relief_jax.config import presets

SEEDS = (0, 1, 2)
CLIP = 0.5
MULTIPLIERS = {'half': 0.5, 'one': 1.0, 'two': 2.0}


def labels() -> dict[str, dict]:
  """Maps labels to keys of runs."""
  found: dict[str, dict] = {
    'plain': {},
    'none': {'hparams': {'clip_norm': CLIP}},
  }
  for name, multiplier in MULTIPLIERS.items():
    found[f'noise_{name}'] = {
      'privacy': {'noise': 'server'},
      'hparams': {'clip_norm': CLIP, 'noise_multiplier': multiplier},
    }
  return found


def get_config(arg=None):
  """Builds the config of the comparison, with the variants in `arg`.

  Raises:
    InputError: an unknown variant.
  """
  c = presets.dsads()
  c.method, c.deadline = 'cohort_mean', 'none'
  c.clients, c.clients_per_round = 200, 50
  c.rounds, c.rounds_per_call, c.eval_every = 20, 5, 10
  c.model.filters, c.model.hidden = (8, 8), 16
  presets.apply(c, arg, synthetic=lambda c: c.update(dataset='synthetic'))
  if c.clients_per_round > c.clients:
    c.clients_per_round = c.clients // 2
  seeds = (0,) if 'smoke' in (arg or '').split(',') else SEEDS
  return comparison.build(c, labels(), seeds, baseline='none')
