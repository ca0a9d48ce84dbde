"""Own exceptions reach another process as they were raised."""

import errno
import importlib
import inspect
import pickle
import pkgutil

import pytest

import benchmarks
import experiments
import relief_jax
from relief_jax.engine.debug import ClientError, _NotFinite
from relief_jax.errors import InputError, Portable, StorageError
from relief_jax.runs.round_totals import Diverged

# One of each class that has an `__init__` of its own.
RAISED = (
  InputError('3 windows', 'at least 8', 'lower --config.clients'),
  StorageError('runs/a', errno.ENOSPC),
  Diverged(3, 'encoder/acc', 2),
  Diverged(3, '', 2),
  ClientError(3, 7, 'low', 'no numbers', 'encoder/acc'),
  _NotFinite('encoder/acc'),
)


def exceptions():
  """Every exception class that a module of ours defines."""
  found = set()
  for package in (relief_jax, experiments, benchmarks):
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):
      if info.name.startswith('benchmarks.peers') or '__main__' in info.name:
        continue  # need the libraries that they are about; start at once
      try:
        module = importlib.import_module(info.name)
      except ImportError:
        continue  # an optional library
      except Exception as error:  # flags that another command has defined
        assert 'flag' in type(error).__name__.lower(), info.name
        continue
      for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, BaseException):
          if value.__module__ == info.name:
            found.add(value)
  return found


@pytest.mark.parametrize(
  ('cure', 'end'),
  [
    ('write 3', 'cure: write 3.'),
    ('Did you mean "round"?', 'cure: Did you mean "round"?'),
    ('See the page.', 'cure: See the page.'),
  ],
)
def test_a_message_ends_once(cure, end):
  assert str(InputError('a', 'b', cure)).endswith(end)


def test_every_exception_with_arguments_of_its_own_is_portable():
  own = {e for e in exceptions() if '__init__' in vars(e)}
  assert own >= {InputError, StorageError, Diverged}
  assert all(issubclass(e, Portable) for e in own)
  assert {type(error) for error in RAISED} == own


@pytest.mark.parametrize('error', RAISED, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_there_and_back(error, protocol):
  error.add_note('met on the way')
  back = pickle.loads(pickle.dumps(error, protocol))
  assert type(back) is type(error) and str(back) == str(error)
  assert back.args == error.args and vars(back) == vars(error)
