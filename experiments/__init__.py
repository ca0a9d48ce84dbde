"""Commands and configs of a checkout; what they call lies in `relief_jax`.

Modules that lay here before version 0.2 are still found by `from experiments
import runner`, for scripts that rely on it.
"""

import importlib

_MOVED = {
  'pool': 'relief_jax.campaign.pool',
  'progress': 'relief_jax.storage.progress',
  'records': 'relief_jax.storage.records',
  'runner': 'relief_jax.storage.runner',
}


def __getattr__(name: str):
  if name in _MOVED:
    return importlib.import_module(_MOVED[name])
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
