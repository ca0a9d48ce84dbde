"""Who may import whom, by reading the source; nothing here runs it."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests.support.paths import ROOT

LIBRARY = ROOT / 'relief_jax'
OURS = ('relief_jax', 'experiments', 'benchmarks')

# Packages and modules right under relief_jax, from low to high: one imports
# itself and lower ones.
LEVELS = (
  'errors',
  'types',
  'task',
  'tree',
  'scoring',
  'files',
  'devices',
  'caching',
  'blocks',
  'costs',
  'keys',
  'plugins',
  'engine',
  'compressors',
  'budgets',
  'optimizers',
  'settings',
  'clients',
  'updates',
  'aggregation',
  'online',
  'selection',
  'rounds',
  'models',
  'algorithms',
  'datasets',
  'config',
  'world',
  'runs',
  'sweep',
  'storage',
  'callbacks',
  'simulate',
  'report',
  'campaign',
  'cli',
)
# Imports that point upwards all the same: {(who, whom): why}.
_NAMES = (
  'looks up names that a config may use; client_data.py validates the config'
)
UPWARDS = {
  ('config.registries', 'world.fleet_files'): _NAMES,
  ('config.registries', 'world.fleets'): _NAMES,
  ('config.registries', 'world.partition'): _NAMES,
  ('config.registries', 'world.splits'): _NAMES,
}
MOST_IN_ROOT = 12  # files right under relief_jax

# Packages that are a dict NAME -> what the file NAME.py makes, and the files of
# each that are no entry.
REGISTRIES = {
  'budgets': (
    'batch_and_cut',
    'cuts',
    'deadlines',
    'depth',
    'elastic',
    'layer_ranks',
    'memory',
    'ranks',
    'server_order',
    'widths',
  ),
  'compressors': ('base', 'rounding'),
  'datasets': None,
  'models': None,
  'selection': ('picking', 'record', 'rows'),
}

FORBIDDEN = {
  'jax._src': 'private',
  'pickle': 'runs what it reads',
  'cloudpickle': 'runs what it reads',
  'dill': 'runs what it reads',
  'shelve': 'runs what it reads',
  'marshal': 'runs what it reads',
  'joblib': 'pickles',
  'chex': 'stays in the tests',
  'tests': 'not there when installed',
}


def sources(*folders):
  found = [p for f in folders for p in sorted((ROOT / f).rglob('*.py'))]
  return [p for p in found if '__pycache__' not in p.parts]


def imports(path):
  """Dotted names that a file imports, `from a import b` as a.b."""
  for node in ast.walk(ast.parse(path.read_text(), str(path))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def module(path):
  """Dotted name of a file below relief_jax; of a package, its own."""
  parts = path.relative_to(LIBRARY).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def graph():
  """{module of the library: modules that it imports}, without the root's."""
  paths = [p for p in sources('relief_jax') if p != LIBRARY / '__init__.py']
  known = {module(path) for path in paths}
  found = {}
  for path in paths:
    names = {
      name.removeprefix('relief_jax.')
      for name in imports(path)
      if name.startswith('relief_jax.')
    }
    found[module(path)] = {
      name if name in known else name.rpartition('.')[0] for name in names
    }
    assert found[module(path)] <= known, path
  return found


def test_imports_point_downwards():
  upwards = set()
  for name, used in graph().items():
    level = LEVELS.index(name.split('.')[0])
    for other in used:
      if LEVELS.index(other.split('.')[0]) > level:
        upwards.add((name, other))
  assert upwards == set(UPWARDS)


def test_no_circles():
  order = list(TopologicalSorter(graph()).static_order())
  assert (
    order.index('types')
    < order.index('rounds.parallel')
    < order.index('simulate')
  )


# Those that `UPWARDS` puts on a circle, by way of their packages.
FIRST = ('config.registries', 'config.validation', 'world.client_data')


@pytest.mark.slow
def test_any_package_may_be_imported_first():
  """The root imports nothing, so that nothing puts them in order."""
  code = f"""
import importlib, sys
import flax, jax, optax, pandas
for name in {(*LEVELS, *FIRST)!r}:
  for known in [m for m in sys.modules if m.split('.')[0] == 'relief_jax']:
    del sys.modules[known]
  importlib.import_module(f'relief_jax.{{name}}')
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
  )
  assert not done.returncode, done.stderr[-2000:]


def test_the_root_stays_small():
  assert len(list(LIBRARY.glob('*.py'))) <= MOST_IN_ROOT
  there = {p.stem for p in LIBRARY.glob('*.py')} - {'__init__'}
  there |= {p.parent.name for p in LIBRARY.glob('*/__init__.py')}
  assert there == set(LEVELS)


def test_the_library_knows_nothing_of_its_users():
  for path in sources('relief_jax'):
    heads = {name.split('.')[0] for name in imports(path)}
    assert not heads & {'experiments', 'benchmarks'}, path


def test_a_config_stands_alone():
  """It is run by its path, from wherever it was installed."""
  folder = ROOT / 'experiments' / 'configs'
  for path in folder.glob('*.py'):
    used = {name.partition('.')[0] for name in imports(path)}
    assert not used & {'experiments', 'benchmarks', 'tests'}, path


@pytest.mark.parametrize('name', FORBIDDEN)
def test_not_imported(name):
  for path in sources(*OURS):
    for found in imports(path):
      if name == 'tests' and path.parts[-2] == 'benchmarks':
        continue
      assert not f'{found}.'.startswith(f'{name}.'), (
        f'{path} imports {found}: {FORBIDDEN[name]}'
      )


def test_nothing_is_evaluated():
  for path in sources(*OURS):
    for node in ast.walk(ast.parse(path.read_text())):
      if not isinstance(node, ast.Call):
        continue
      if isinstance(node.func, ast.Name):
        assert node.func.id not in ('eval', 'exec', 'compile', '__import__'), (
          f'{path}:{node.lineno}'
        )
      for keyword in node.keywords:
        assert keyword.arg != 'allow_pickle' or not getattr(
          keyword.value, 'value', True
        ), f'{path}:{node.lineno} may read pickles'


@pytest.mark.parametrize('package', REGISTRIES)
def test_a_package_is_a_registry(package):
  """A dict NAME -> what the file NAME.py makes, called as the package."""
  path = LIBRARY / package / '__init__.py'
  assigned = {}
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.Assign | ast.AnnAssign):
      target = node.targets[0] if isinstance(node, ast.Assign) else node.target
      assigned[target.id] = node.value
  registry = assigned[package.upper()]
  assert isinstance(registry, ast.Dict)
  names = [key.value for key in registry.keys]
  assert len(set(names)) == len(names) > 0
  for name in names:
    assert name == name.lower()
    assert (path.parent / f'{name}.py').is_file(), name


@pytest.mark.parametrize(
  'package', [name for name, others in REGISTRIES.items() if others is not None]
)
def test_every_file_of_a_registry_is_registered(package):
  """A file that nobody can name is of no use; helpers are listed above."""
  library = importlib.import_module(f'relief_jax.{package}')
  names = set(getattr(library, package.upper()))
  files = {p.stem for p in (LIBRARY / package).glob('*.py')}
  assert files - {'__init__', *REGISTRIES[package]} == names
