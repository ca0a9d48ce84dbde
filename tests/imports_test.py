"""Who may import whom, by reading the source; nothing here runs it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / 'relief_jax'
OURS = ('relief_jax', 'experiments', 'benchmarks')

# What a part of the library may import of it, itself included if a package.
# Parts that are not here build the world on the host; see below.
_BASE = {'types', 'tree', 'errors', 'ambient'}
_ROUND = _BASE | {
  'placement',
  'training',
  'cohort',
  'costs',
  'buckets',
  'recipe',
  'compressors',
  'guard',
}
MAY = {
  'types': set(),
  'errors': set(),
  'ambient': {'types'},
  'text_files': {'errors'},
  'tree': {'types'},
  'keys': set(),
  'config': {'keys'},
  'modules': {'errors'},
  'windows': {'errors'},
  'placement': _BASE,
  'noise': {'types'},
  'shift': _BASE | {'noise'},
  'training': _BASE | {'shift'},
  'online': _BASE | {'shift', 'online', 'paths', 'text_files'},
  'patience': _BASE | {'costs', 'recipe'},
  'prototypes': _BASE | {'recipe'},
  'quality': _BASE | {'recipe', 'prototypes', 'costs'},
  'cohort': _BASE,
  'costs': _BASE,
  'guard': _BASE,
  'shapley': _BASE,
  'cosines': {'cohort'} | _BASE,
  'clusters': _BASE,
  'evaluation': _BASE | {'shift'},
  'buckets': _BASE | {'placement', 'cohort', 'costs'},
  'recipe': _BASE | {'placement', 'buckets', 'compressors', 'guard'},
  'robust': _BASE | {'guard', 'recipe'},
  'links': _BASE | {'costs', 'recipe', 'compressors'},
  'local_training': _BASE | {'cohort', 'recipe', 'training'},
  'merging': _BASE | {'recipe'},
  'accounting': _BASE | {'cohort', 'costs', 'patience', 'recipe'},
  'participant': _BASE
  | {'recipe', 'training', 'local_training', 'links', 'guard', 'cosines'},
  'rounds': _ROUND
  | {'links', 'local_training', 'online', 'patience', 'robust', 'cosines'}
  | {'accounting', 'merging', 'participant'},
  'budgets': _BASE | {'budgets'},
  'depth': _BASE | {'costs', 'budgets'},
  'selection': _BASE | {'costs', 'budgets'},
  'compressors': _BASE | {'compressors'},
  'widths': _BASE | {'costs', 'budgets'},
  'models': _BASE | {'models', 'widths'},
  'devices': {'errors', 'devices', 'text_files'},
  'machine': set(),
  'output': set(),
  'paths': {'errors'},
  'datasets': {'errors', 'machine', 'output', 'paths', 'windows', 'datasets'}
  | {'text_files'},
  # Algorithms see a Task and a Population, whatever made them.
  'algorithms': _ROUND
  | {'links', 'rounds', 'budgets', 'algorithms', 'depth', 'widths'}
  | {'local_training', 'noise', 'selection', 'shapley', 'clusters'}
  | {'online', 'patience', 'prototypes', 'quality'}
  | {'accounting', 'participant'},
  'program': _ROUND
  | {'rounds', 'algorithms', 'models', 'evaluation', 'shift', 'world'},
  'tuner': _ROUND
  | {'algorithms', 'program', 'models', 'datasets'}
  | {'compile_cache', 'machine', 'memory', 'processes'},
}
# What builds the world looks names up, of algorithms too; its parts do not.
# So does what describes a run.
WORLD = {'dealing', 'world', 'reports', 'registries', 'validation'}
# What a user calls; nothing of the library imports these.
TOP = {'simulate', 'sweep'}
WORLD_NOT = {'program', 'rounds'} | TOP
HOST_NOT = WORLD | WORLD_NOT | {'algorithms'}

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


def part(path):
  """The module or package right under relief_jax that a file is of."""
  return path.relative_to(LIBRARY).with_suffix('').parts[0]


def graph():
  """{part of the library: parts it imports}."""
  found = {}
  for path in sources('relief_jax'):
    if path == LIBRARY / '__init__.py':
      continue
    used = found.setdefault(part(path), set())
    for name in imports(path):
      head, _, tail = name.partition('.')
      if head == 'relief_jax' and tail:
        used.add(tail.split('.')[0])
  return found


def test_imports_point_downwards():
  for name, used in graph().items():
    if name in MAY:
      assert used <= MAY[name], f'{name} imports {sorted(used - MAY[name])}'
    elif name not in TOP:
      wrong = used & (WORLD_NOT if name in WORLD else HOST_NOT)
      assert not wrong, f'{name} imports {sorted(wrong)}'


def test_no_circles():
  without_self = {k: v - {k} for k, v in graph().items()}
  order = list(TopologicalSorter(without_self).static_order())
  assert order.index('types') < order.index('rounds') < order.index('simulate')


def test_the_library_knows_nothing_of_its_users():
  for path in sources('relief_jax'):
    heads = {name.split('.')[0] for name in imports(path)}
    assert not heads & {'experiments', 'benchmarks'}, path


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


# The processes of an online world go together; none is chosen by name.
PACKAGES = sorted(
  {p.parent.name for p in LIBRARY.glob('*/__init__.py')} - {'online'}
)


@pytest.mark.parametrize('package', PACKAGES)
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


def test_every_file_of_a_registry_is_registered():
  """A file that nobody can name is of no use; helpers start otherwise."""
  from relief_jax import algorithms, budgets, compressors, devices

  for package, names, helpers in (
    ('algorithms', algorithms.ALGORITHMS, ()),
    ('budgets', budgets.BUDGETS, ()),
    ('compressors', compressors.COMPRESSORS, ('base', 'rounding')),
    ('devices', devices.DEVICES, ('base', 'figures')),
  ):
    files = {p.stem for p in (LIBRARY / package).glob('*.py')}
    assert files - {'__init__', *helpers} == set(names)
