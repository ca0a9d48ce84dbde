"""Before JAX starts: CPU only, eight virtual devices, strict broadcasting.

`python -m pytest -m invariant --contract` ends with a table: which promise of
docs/contract.md was tried for which method, by how many tests and examples.
"""

import collections
import os
import pathlib

os.environ['JAX_PLATFORMS'] = 'cpu'
# Programs here are tiny and run once. So they compile in a third of the time,
# in children, too.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_cpu_use_fusion_emitters=false',
    '--xla_cpu_parallel_codegen_split_count=1',
  ]
).strip()

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
# A [f] bias added to [B, f] is a bug waiting for B == f.
jax.config.update('jax_numpy_rank_promotion', 'raise')

# The same examples in every run; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile('steady', derandomize=True, database=None)
settings.register_profile('explore', derandomize=False)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'steady'))


@pytest.fixture
def fake(monkeypatch):
  """The fake simulation in place of the real one."""
  from relief_jax.runs import simulation
  from tests.support import fake_simulate

  monkeypatch.setattr(simulation, 'Simulation', fake_simulate.Simulation)
  fake_simulate.CALLS.clear()
  return fake_simulate


@pytest.fixture
def inline(monkeypatch):
  """Runs of campaigns take place here, on the fake; a list of them."""
  from tests.support import campaigns

  return campaigns.run_inline(monkeypatch)


# Memory maps of a process, as Linux allows by default: a compiled program
# takes a dozen, and the compiler ends the process when there are no more.
_MOST_MAPS = 65530


def pytest_runtest_teardown(item, nextitem):
  """Forgets compiled programs between two files, before there are too many."""
  maps = pathlib.Path('/proc/self/maps')
  if nextitem is None or item.path == nextitem.path or not maps.exists():
    return
  if maps.read_bytes().count(b'\n') > _MOST_MAPS // 2:
    from relief_jax import simulate
    from tests.support import tiny

    tiny.clear()
    simulate.clear()


# What `compile_cache.enable` sets.
_CACHE = (
  'jax_compilation_cache_dir',
  'jax_persistent_cache_min_compile_time_secs',
  'jax_persistent_cache_min_entry_size_bytes',
)


def pytest_addoption(parser):
  parser.addoption(
    '--contract', action='store_true', help='a table of invariants by method'
  )
  parser.addoption(
    '--method',
    action='append',
    default=[],
    help='a method of your own, MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE, that '
    'joins tests/contract; may be repeated',
  )


def pytest_configure(config):
  """Keeps compiled programs, and finds the methods of `--method`.

  What was compiled is kept in pytest's cache, shared by its processes and
  found again as long as the program, JAX and the machine are the same:
  `--cache-clear` begins anew.
  """
  from relief_jax import algorithms
  from relief_jax.engine import compile_cache
  from relief_jax.errors import InputError

  if getattr(config, 'cache', None):
    compile_cache.enable(config.cache.mkdir('programs'))
    for name in _CACHE:  # of children, too
      os.environ[name.upper()] = str(getattr(jax.config, name))
  for name in config.getoption('--method'):
    try:
      algorithms.find(name)
    except InputError as error:
      raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
  """Notes what a test of an invariant has tried, for the table."""
  numbers = [n for mark in item.iter_markers('invariant') for n in mark.args]
  if call.when == 'call' and numbers:
    from tests.support import strategies

    given = item.callspec.params if hasattr(item, 'callspec') else {}
    examples = strategies.TRIED.pop('examples', 1)
    found = numbers, str(given.get('method', 'one world')), examples
    item.user_properties.append(('invariant', found))
  return (yield)


def pytest_terminal_summary(terminalreporter, config):
  """Prints the table where it is asked for."""
  if not config.getoption('--contract'):
    return
  tests: collections.Counter = collections.Counter()
  examples: collections.Counter = collections.Counter()
  for report in terminalreporter.stats.get('passed', ()):
    for name, (numbers, method, count) in (
      p for p in report.user_properties if p[0] == 'invariant'
    ):
      del name
      for number in numbers:
        tests[method, number] += 1
        examples[method, number] += count
  every = sorted({number for _, number in tests})
  terminalreporter.section('invariants, passed tests / examples')
  line = terminalreporter.write_line
  line(' ' * 16 + ''.join(f'{number:>10}' for number in every))
  for method in sorted({method for method, _ in tests}):
    cells = (
      f'{tests[method, n]} / {examples[method, n]}' if tests[method, n] else ''
      for n in every
    )
    line(f'{method:<16}' + ''.join(f'{cell:>10}' for cell in cells))
