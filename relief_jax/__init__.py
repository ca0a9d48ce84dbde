"""Simulates federated learning on heterogeneous multimodal devices, in JAX.

What `__all__` lists is public; each is imported when it is first used, so that
`import relief_jax` itself takes no time.

>>> import relief_jax
>>> relief_jax.config.default().method
'relief'
"""

import importlib
import typing

if typing.TYPE_CHECKING:
  from relief_jax import callbacks as callbacks
  from relief_jax import config as config
  from relief_jax import errors as errors
  from relief_jax import simulate as simulate
  from relief_jax import sweep as sweep
  from relief_jax.storage.model_file import load_model as load_model
  from relief_jax.storage.reading import load as load
  from relief_jax.storage.reading import read_runs as read_runs

__version__ = '0.2.0'
__all__ = [
  'callbacks',
  'config',
  'errors',
  'load',
  'load_model',
  'read_runs',
  'simulate',
  'sweep',
]

# Functions, and where they are; all other names are modules.
_FUNCTIONS = {
  'load': 'storage.reading',
  'load_model': 'storage.model_file',
  'read_runs': 'storage.reading',
}


def __getattr__(name: str) -> typing.Any:
  """Imports a public name when it is first used."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.{_FUNCTIONS.get(name, name)}')
  found = getattr(module, name) if name in _FUNCTIONS else module
  globals()[name] = found
  return found


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
