"""Reads a config from flags: its keys, its file, its errors.

`--config=FILE` runs a Python file of the user's, and `--config.KEY=VALUE` sets
keys. What goes wrong there is told in terms of the key or of the file. What the
file adds to a registry reaches other processes and later runs, since
`config.modules` then names the file.
"""

import pathlib
import re
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections.config_flags import (
  get_config_filename,
  get_override_values,
)

from relief_jax import config as config_lib
from relief_jax import plugins
from relief_jax.campaign import comparison, points
from relief_jax.cli import config_lookup
from relief_jax.config import modules, registries
from relief_jax.config.validation import check
from relief_jax.errors import InputError
from relief_jax.keys import Key
from relief_jax.storage.job_spec import Job

_KEY = re.compile(r'--?config\.([\w.]+)=(.*)', re.DOTALL)
_REFUSED = re.compile(r'flag --config\.([\w.]+)=(.*?): ', re.DOTALL)
_SHOWN = 160  # characters of an error's own words


def rows() -> dict[str, Key]:
  """Gives the row of every key, those of a comparison among them."""
  return config_lib.rows() | comparison.ROWS


def prepare(
  argv: Sequence[str], swept: dict[str, str] | None = None
) -> list[str]:
  """Imports what flags name, and spells tuples as config flags take them.

  `--config.modules` and names that lead outside of the package come first: the
  config file and other flags may need their keys.

  >>> prepare(['x', '--config.seeds=0:3', '--config.rounds=2'])
  ['x', '--config.seeds=(0, 1, 2)', '--config.rounds=2']

  Args:
    argv: of the command.
    swept: texts of `--sweep.KEY`; names that lead to a file get its whole path.

  Raises:
    InputError: what cannot be imported, or an empty range.
  """
  given = [(arg, _KEY.fullmatch(arg)) for arg in argv]
  for key in (*(found[1] for _, found in given if found), *(swept or ())):
    config_lib.refuse_renamed(key)
  for _, found in given:
    if found and found[1] == 'modules':
      modules.load(_members(found[2]))
  for _, found in given:
    if found:
      registries.meet({found[1]: found[2]})
  swept = {} if swept is None else swept
  for key, text in swept.items():
    parts = text.split(',')
    met = [registries.meet({key: part}).get(key, part) for part in parts]
    swept[key] = ','.join(met)
  known = rows()
  return [
    f'--config.{found[1]}={_spelled(known[found[1]], *found.groups())}'
    if found and found[1] in known
    else arg
    for arg, found in given
  ]


def _spelled(row: Key, key: str, text: str) -> str:
  """Spells a tuple in Python and a path in full; the rest stays as it is."""
  if registries.kind_of(row):  # later runs may start elsewhere
    return plugins.absolute(text)
  if row.kind in ('wholes', 'labels') and points.is_range(text):
    return repr(tuple(points.parse(key, text, 0)))
  if key == 'modules':
    return repr(tuple(map(modules.identity, _members(text))))
  if row.kind == 'names' and text:
    return repr(_members(text))
  return text


def _members(text: str) -> tuple[str, ...]:
  """Splits a tuple's names, written as in Python or joined by commas.

  >>> _members('a.b,c.py'), _members("('a.b',)")
  (('a.b', 'c.py'), ('a.b',))
  """
  parts = text.strip('()[]').split(',')
  return tuple(p for p in (part.strip(' \'"') for part in parts) if p)


def explain(error: BaseException, argv: Sequence[str]) -> InputError | None:
  """Explains an error in a key or in the config file.

  Args:
    error: that parsing the flags raised.
    argv: that were parsed.

  Returns:
    None where it is neither.
  """
  chain = list(_chain(error))
  for one in chain:  # a config file's own error, wrapped on its way
    if isinstance(one, InputError):
      return one
  if found := _REFUSED.match(str(error)):
    return _refused(found[1], found[2])
  path = _path(argv)
  for one in chain:
    if isinstance(one, SyntaxError) and _same(one.filename, path):
      return _broken(path, one.lineno, one.msg)
    lines = [
      frame.lineno
      for frame in traceback.extract_tb(one.__traceback__)
      if _same(frame.filename, path)
    ]
    said = f'{type(one).__name__}: {_first_line(one)}'
    if lines:
      return _broken(path, lines[-1], said)
    if isinstance(one, AttributeError | TypeError) and 'get_config' in said:
      return InputError(
        f'{path} without get_config(arg=None) ({said})',
        'that function, which returns the config of a run or a comparison',
        'add it: it starts from relief_jax.config.default(), as those in '
        'experiments/configs do',
      )
    if "Attribute <class '" in said:
      return _no_config(path)
  return None


def _first_line(error: BaseException) -> str:
  text = str(error.args[0]) if error.args else ''
  # A KeyError's is quoted, with its line ends spelled out.
  first = text.strip().strip('"\'').replace('\\n', '\n').partition('\n')[0]
  return first if len(first) <= _SHOWN else f'{first[:_SHOWN]}...'


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  while error:
    yield error
    error = error.__cause__ or error.__context__


def _refused(key: str, text: str) -> InputError | None:
  """Builds the error of a value that its type's parser did not take."""
  row = rows().get(key)
  if row:
    try:
      check(key, text, row)
    except InputError as error:
      return error
  elif any(name.startswith(f'{key}.') for name in rows()):
    return InputError(
      f'config.{key}={text}', 'a key of that group', f'set --config.{key}.KEY'
    )
  return None


def _path(argv: Sequence[str]) -> str:
  """Finds the config file that is asked for."""
  for i, arg in enumerate(argv):
    name, equals, value = arg.partition('=')
    if name in ('--config', '-config'):
      value = value if equals else ''.join(argv[i + 1 : i + 2])
      return value.partition(':')[0]
  return ''


def _same(name: str | None, path: str) -> bool:
  return bool(name and path) and modules.identity(str(name)) == (
    modules.identity(path)
  )


def _broken(path: str, line: int | None, said: str | None) -> InputError:
  return InputError(
    f'{path}, line {line}: {said}',
    'a config file that Python can run',
    'correct it',
  )


def _no_config(path: str) -> InputError:
  return InputError(
    f'{path}, whose get_config returns no config',
    'a ConfigDict that starts from relief_jax.config.default()',
    'return it at the end of get_config',
  )


def settle(before: list[dict]) -> None:
  """Records in `config.modules` a config file that added to a registry.

  Args:
    before: `registries.contents()` of the time before the file was run.

  Raises:
    InputError: the file gave no config.
  """
  if 'config' not in flags.FLAGS or not flags.FLAGS['config'].present:
    return
  path = get_config_filename(flags.FLAGS['config'])
  path = path.partition(':')[0]
  config: Any = flags.FLAGS['config'].value
  if not isinstance(config, ml_collections.ConfigDict):
    raise _no_config(path)
  if pathlib.Path(path).name == config_lookup.JSON or 'modules' not in config:
    return  # a config.json names what it needs
  if registries.contents() != before:
    modules.note(path)
    known = {modules.identity(name) for name in config.modules}
    if modules.identity(path) not in known:
      config.modules = (*config.modules, modules.identity(path))


def taken(config: ml_collections.ConfigDict, jobs: Sequence[Job]) -> None:
  """Checks that runs take what flags give to all of them; says which do not.

  Labels of a comparison may set a key themselves, and theirs comes later.

  Args:
    config: that all runs share.
    jobs: the runs.

  Raises:
    InputError: a key that every run has another value of.
  """
  for key in get_override_values(flags.FLAGS['config']):
    asked = config_lib.get(config, key)
    own = [job for job in jobs if job.values.get(key, asked) != asked]
    labels = list(dict.fromkeys(job.label for job in own))
    few = ', '.join(labels[:3]) + ', …' * (len(labels) > 3)
    if own and len(own) == len(jobs):
      numbers = key in ('seed', 'data.fold')
      cure = 'config.seeds' if numbers else f'sweep.{key}'
      raise InputError(
        f'--config.{key}={asked}, but every run has its own ({few})',
        'a key of the whole comparison',
        f'leave it out, or write --{cure}={asked}'
        + ' with relief sweep' * (not numbers),
      )
    if own:
      print(
        f'--config.{key}={asked} is not for {len(own)} of {len(jobs)} runs, '
        f'which have their own ({few})'
      )
