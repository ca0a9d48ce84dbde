"""The points of a sweep: grids, lists and random draws over config keys.

    --sweep.hparams.client_lr=.03,.1     two values
    --sweep.seed=0:5                     0, 1, 2, 3, 4 (0:10:2 steps by two)
    --sweep.method=relief,fedavg         names
    --sweep.data.test_subjects='(7,8),(1,2)'    values with commas in them
    --sweep.hparams.client_lr='log(.001,.3)'    drawn, evenly in the logarithm
    --sweep.hparams.ema='uniform(0,1)'          drawn
    --sweep.local_steps='int(1,8)'              drawn, both ends included

Lists make a grid. Where a key is drawn, there are `trials` draws of all drawn
keys, each crossed with the grid. A config file may have a function
`sweep(add)`, which calls `add({key: value, ...})` once per point; flags are
crossed with these.
"""

import ast
import importlib.util
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from relief_jax import config as config_lib
from relief_jax.config.validation import check
from relief_jax.errors import InputError
from relief_jax.keys import flatten, shown

PREFIX = '--sweep.'
_MOST = 100_000  # values of a range
_RANGE = re.compile(r'(-?\d+):(-?\d+)(?::([1-9]\d*))?')
_DRAW = re.compile(r'(log|uniform|int)\(([^,()]+),([^,()]+)\)')


class Draw(NamedTuple):
  """Describes a value that is drawn at random.

  Attributes:
    kind: log, uniform or int.
    low: smallest.
    high: largest.
  """

  kind: str
  low: float
  high: float

  def __call__(self, rng: np.random.Generator) -> float | int:
    """Draws a value, of four digits if no integer: it names a folder."""
    if self.kind == 'int':
      return int(rng.integers(int(self.low), int(self.high), endpoint=True))
    low, high = self.low, self.high
    if self.kind == 'log':
      low, high = math.log(low), math.log(high)
    found = float(rng.uniform(low, high))
    return float(f'{math.exp(found) if self.kind == "log" else found:.4g}')


def parse_shard(text: str) -> tuple[int, int]:
  """Parses i/n into numbers.

  >>> parse_shard('2/4')
  (2, 4)

  Raises:
    InputError: anything else.
  """
  found = re.fullmatch(r'(\d+)/(\d+)', text)
  if not found or not 1 <= int(found[1]) <= int(found[2]):
    raise InputError(
      f'--shard={text}', 'i/n with i from 1 to n', 'set --shard=1/4'
    )
  return int(found[1]), int(found[2])


def split_argv(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
  """Takes the `--sweep.KEY=VALUES` out of a command line.

  >>> split_argv(['x', '--sweep.seed=0:2', '--workdir=a'])
  (['x', '--workdir=a'], {'seed': '0:2'})

  Raises:
    InputError: a flag without its values, or a key twice.
  """
  rest, found = [], {}
  for arg in argv:
    if not arg.startswith((PREFIX, PREFIX[1:])):
      rest.append(arg)
      continue
    key, equals, text = arg[arg.index('.') + 1 :].partition('=')
    if not equals or not text:
      raise InputError(
        f'the flag {arg}', f'{PREFIX}KEY=VALUES', 'join them by ='
      )
    if key in found:
      raise InputError(
        f'{PREFIX}{key} twice', 'once', 'join its values by commas'
      )
    found[key] = text
  return rest, found


def is_range(text: str) -> bool:
  """Tells whether a text is FIRST:END or FIRST:END:STEP."""
  return _RANGE.fullmatch(text) is not None


def parse(key: str, text: str, like: Any) -> list[Any] | Draw:
  """Parses the values of a flag.

  Args:
    key: of the config.
    text: what follows the equals sign.
    like: the config's own value, for its type.

  >>> parse('seed', '0:3', 0), parse('hparams.client_lr', '.03,1', 0.05)
  ([0, 1, 2], [0.03, 1.0])

  Raises:
    InputError: no values, or some that the key cannot take.
  """
  if found := _DRAW.fullmatch(text.replace(' ', '')):
    kind, low, high = found[1], _number(key, found[2]), _number(key, found[3])
    wrong = not low <= high or isinstance(like, str | bool | tuple)  # NaN too
    if wrong or not math.isfinite(high - low) or kind == 'log' and low <= 0:
      raise InputError(
        f'{PREFIX}{key}={text}',
        'two numbers, the smaller one first and above 0 for log, for a key '
        'that takes a number',
        f'write {kind}(0.001,0.1), or a list',
      )
    return Draw(kind, low, high)
  if (found := _RANGE.fullmatch(text)) and isinstance(like, int):
    low, high, step = int(found[1]), int(found[2]), int(found[3] or 1)
    values = range(low, high, step)
    if not 0 < (high - low) / step <= _MOST:
      raise InputError(
        f'{key}={text}',
        f'FIRST:END with END above, {_MOST:,} numbers at most',
        'write, say, 0:5',
      )
    return list(values)
  return [_value(key, part, like) for part in _parts(text)]


def _parts(text: str) -> list[str]:
  """Splits at the commas that are in no bracket.

  >>> _parts('(7,8),(1,2)')
  ['(7,8)', '(1,2)']
  """
  parts, depth = [''], 0
  for letter in text:
    depth += letter in '([{'
    depth -= letter in ')]}'
    if letter == ',' and not depth:
      parts.append('')
    else:
      parts[-1] += letter
  return [part.strip() for part in parts]


def _number(key: str, text: str) -> float:
  try:
    return float(text)
  except ValueError as error:
    raise InputError(
      f'{PREFIX}{key} with {text!r}', 'a number', 'correct it'
    ) from error


def _value(key: str, text: str, like: Any) -> Any:
  """Parses one value, of the type of the config's own."""
  if isinstance(like, str):
    return text
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
    raise InputError(
      f'{PREFIX}{key} with {shown(text)}',
      f'a {type(like).__name__} such as {like!r}',
      'correct it',
    ) from error
  if isinstance(like, float) and isinstance(value, int):
    return float(value)
  if isinstance(like, int) and not isinstance(like, bool):
    if isinstance(value, float) and value.is_integer():
      return int(value)
  return value


def expand(
  own: Iterable[Mapping[str, Any]],
  flags: Mapping[str, list[Any] | Draw],
  trials: int = 0,
  seed: int = 0,
) -> list[dict[str, Any]]:
  """Builds all points, each once.

  Args:
    own: the config's points; none count as one that sets nothing.
    flags: by key.
    trials: draws, where something is drawn.
    seed: of the draws.

  Raises:
    InputError: something is drawn without `trials`, or the reverse.

  >>> expand([], {'seed': [0, 1], 'method': ['a']})
  [{'seed': 0, 'method': 'a'}, {'seed': 1, 'method': 'a'}]
  """
  drawn = {k: v for k, v in flags.items() if isinstance(v, Draw)}
  if bool(drawn) != (trials > 0):
    raise InputError(
      f'--trials={trials} with {len(drawn)} keys to draw',
      'both or neither',
      "set --trials=20 and, say, --sweep.hparams.client_lr='log(.001,.3)'",
    )
  # Every trial has a generator of its own: more trials keep the first ones.
  draws = [
    {
      k: v(np.random.default_rng([seed, i, *k.encode()]))
      for k, v in drawn.items()
    }
    for i in range(trials)
  ] or [{}]
  lists = {k: v for k, v in flags.items() if isinstance(v, list)}
  grid = [
    dict(zip(lists, values, strict=True))
    for values in itertools.product(*lists.values())
  ]
  points: list[dict[str, Any]] = []
  seen = set()
  for first, second, third in itertools.product(list(own) or [{}], draws, grid):
    point = {**first, **second, **third}
    name = repr(sorted(point.items()))
    if name not in seen:
      seen.add(name)
      points.append(point)
  return points


def collect(sweep: Callable | None) -> list[dict[str, Any]]:
  """Collects the points that a config's `sweep(add)` adds.

  Args:
    sweep: the function, or None.

  Raises:
    InputError: it added something else than a mapping.
  """
  found: list[dict[str, Any]] = []

  def add(values):
    if not isinstance(values, Mapping):
      raise InputError(
        f'sweep(add) added {values!r}', "add({'seed': 1})", 'correct the config'
      )
    found.append(flatten(dict(values)))

  if sweep:
    sweep(add)
  return found


def swept(config, texts: dict[str, str]) -> dict:
  """Parses the flags `--sweep.KEY=VALUES`.

  Raises:
    InputError: a key that the config does not have, or bad values.
  """
  known = flatten(config.to_dict())
  for key in texts:
    if key not in known:
      raise InputError(
        f'unknown config key {key!r} in {PREFIX}{key}',
        'a key of the config, such as seed or hparams.client_lr',
        'see relief_jax/config/table.py for all keys',
      )
  found = {k: parse(k, v, known[k]) for k, v in texts.items()}
  table = config_lib.rows()
  for key, values in found.items():
    if isinstance(values, Draw):
      whole = table[key].kind == 'whole'
      values = [
        int(end) if whole and end.is_integer() else end
        for end in (values.low, values.high)
      ]
    for value in values:
      if key in table:
        check(key, value, table[key])
  return found


def own_sweep(path: str) -> Callable | None:
  """Loads the function `sweep` of a config file, None where it has none."""
  path = path.partition(':')[0]
  spec = importlib.util.spec_from_file_location('swept_config', path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return getattr(module, 'sweep', None)
