"""Hostile input at every door: what is refused is refused in our own words.

python -m tests.fuzz --minutes=5 [--only=npz,fleet_csv] [--seed=0]

Valid inputs are mutated and made up: bytes flipped, cut, doubled and spliced
with tokens that break parsers. Each door either takes the input or raises
`InputError` (or `StorageError`). Anything else, a try of more than 20 s, or one
that needs more than 4 GB is a crash, printed with the number that makes it
again: `--only=TARGET --again=NUMBER`.
"""

import argparse
import collections
import contextlib
import functools
import io
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable

import absl.logging
import numpy as np

from experiments import command, points, records, sweep_jobs, tables
from experiments.checkpoints import Checkpoints
from relief_jax import config as config_lib
from relief_jax import fleet_files, placement, validation, windows, world
from relief_jax.datasets import cache, download, npz, packed
from relief_jax.devices import figures
from relief_jax.errors import InputError, StorageError
from tests import kills, originals, tiny

ACCEPTED = InputError, StorageError
_SECONDS, _BYTES, _TURN = 20, 4 << 30, 2

_TOKENS = (
  '-1 0 1e999999999 1e-999999999 nan inf -inf 0x1f 1_0 None true null NaN '
  '1/0 0/1 3/2 ../../etc/passwd /dev/zero all acc acc+acc + ; , : " \' \\ '
  '{ } [ ] {} [] [[[[[ %s ${x} \x00 \ufeff \u202e é \ud7ff '
  '9999999999999999999999 1e308 1e400 -0.0 .5 5. 1,5 block:0 @0 @-1 @9999'
).split(' ')
_TOKENS += ['9' * 5000, '[' * 100_000, '{"a":' * 3000, 'x' * 200_000, '\n', '']


def mutated(rng: random.Random, data: bytes) -> bytes:
  """Changed in one to four places."""
  data = bytearray(data)
  for _ in range(rng.randint(1, 4)):
    at = rng.randrange(len(data) + 1)
    to = min(len(data), at + rng.choice((1, 2, 8, 100, len(data))))
    kind = rng.randrange(6)
    if kind == 0 and at < len(data):
      data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
      del data[at:to]
    elif kind == 2:
      data[at:at] = data[at:to]
    elif kind == 3:
      data[at:at] = rng.randbytes(rng.randint(1, 9))
    elif kind == 4:
      token = rng.choice(_TOKENS).encode('utf-8', 'surrogatepass')
      data[at : rng.choice((at, to))] = token
    else:
      del data[at:]
  return bytes(data)


def value(rng: random.Random, depth: int = 0):
  """A value that JSON knows, mostly an odd one."""
  kind = rng.randrange(10 if depth < 2 else 8)
  if kind < 3:
    return rng.choice((0, -1, 1, 2, 3, 7, 10**6, 2**31, 2**63, -(2**70)))
  if kind < 5:
    odd = (0.0, -0.5, 0.5, 1e-300, 1e300, float('nan'), float('inf'))
    return rng.choice(odd)
  if kind == 5:
    return rng.choice((True, False, None, ''))
  if kind < 8:
    return rng.choice(_TOKENS[:-5])
  if kind == 8:
    return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
  return {str(value(rng, 2)): value(rng, depth + 1) for _ in range(2)}


# -- Fleets and devices ----------------------------------------------------

_CSV = b"""name,share,sensors,device,speed_gflops,idle_mw
band,70,acc+gyro,cortex_m7,,
phone,30,all,jetson_nano,12.5,900
"""
_ROW = {
  'name': 'a',
  'count': 3,
  'sensors': ['acc', 'gyro'],
  'device': 'jetson_nano',
  'uplink_mbps': 20,
}


def fleet_csv(rng, folder):
  (folder / 'fleet.csv').write_bytes(mutated(rng, _CSV))
  fleet_files.read(str(folder / 'fleet.csv'))


def fleet_json(rng, folder):
  rows = [dict(_ROW), {**_ROW, 'name': 'b'}]
  if rng.random() < 0.5:
    rows[0][rng.choice([*_ROW, 'share', 'speed_w', '', 'x'])] = value(rng)
    text = json.dumps(rows).encode()
  else:
    text = mutated(rng, json.dumps(rows).encode())
  (folder / 'fleet.json').write_bytes(text)
  fleet_files.read(str(folder / 'fleet.json'))


def device_json(rng, folder):
  values = {'speed_gflops': 3.5, 'active_w': 2, 'idle_mw': 30, 'name': 'x'}
  values |= {'sending_w': 1, 'receiving_w': 1, 'uplink_mbps': 9}
  values['downlink_mbps'] = 9
  values[rng.choice([*values, 'speed_w', ''])] = value(rng)
  text = json.dumps(values).encode()
  path = folder / 'device.json'
  path.write_bytes(mutated(rng, text) if rng.random() < 0.5 else text)
  figures.read(path)


# -- Configs and flags -----------------------------------------------------


@functools.cache
def _keys() -> tuple[str, ...]:
  return tuple(records.flatten(records.clean(config_lib.default())))


def _nested(flat: dict) -> dict:
  found: dict = {}
  for key, one in flat.items():
    *path, last = key.split('.')
    inner = functools.reduce(lambda d, k: d.setdefault(k, {}), path, found)
    inner[last] = one
  return found


def config_json(rng, folder):
  """A file as `--config` takes it, and what is checked before any work."""
  values = records.clean(config_lib.default())
  if rng.random() < 0.5:
    text = mutated(rng, json.dumps(values).encode())
  else:
    flat = records.flatten(values)
    for _ in range(rng.randint(1, 3)):
      flat[rng.choice(_keys())] = value(rng)
    text = json.dumps(_nested(flat)).encode()
  (folder / 'config.json').write_bytes(text)
  found = records.read_json(folder / 'config.json')
  validation.validate(records.config_from_dict(found))


def small_world(rng, folder):
  """The whole way from a config to a world, sizes within reason."""
  del folder
  config = tiny.config(dataset='synthetic')
  for _ in range(rng.randint(1, 2)):
    key = rng.choice(_keys())
    if key in ('data.download', 'devices', 'data_path'):
      continue
    like = config_lib.get(config, key)
    choices = [like, value(rng)]
    if isinstance(like, int | float) and not isinstance(like, bool):
      choices += [-1, 0, 1, 2, 5, 50, 0.3, 1e9, -1e9, float('nan')]
    records.override(config, _nested({key: rng.choice(choices)}))
  world.build(config, None)


def flags(rng, folder):
  """The command line's own small languages."""
  del folder
  text = mutated(rng, rng.choice(_FLAGS).encode()).decode('utf-8', 'replace')
  key = rng.choice(_keys())
  like = config_lib.get(config_lib.default(), key)
  doors = (
    lambda: points.parse(key, text, like),
    lambda: points.swept(config_lib.default(), {key: text}),
    lambda: points.swept(config_lib.default(), {text: '1'}),
    lambda: sweep_jobs.parse_shard(text),
    lambda: points.split_argv(['x', points.PREFIX + text]),
    lambda: placement.parse_layout(text, 1),
    lambda: command.rewrite(['x', f'--config={text}']),
  )
  rng.choice(doors)()


_FLAGS = (
  '.03,1',
  '0:5:2',
  'log(1e-3,1e-1)',
  'int(1,3)',
  '(7,8),(1,)',
  'tight,1.75*tight',
  'block:8@2',
  '2/4',
  'seed=0:5',
  'experiments/configs/relief.py:smoke',
)


# -- Data ------------------------------------------------------------------


def _own_arrays() -> dict:
  rng = np.random.default_rng(0)
  return {
    'x': rng.normal(size=(60, 3)).astype(np.float32),
    'y': np.repeat(['sit', 'walk', ''], 20),
    'subject': np.repeat([1, 2], 30),
    'rate': np.array(10.0),
    'modality': np.array(['acc', 'acc', 'ecg']),
  }


def _odd_array(rng) -> np.ndarray:
  kind = rng.choice(('f4', 'f8', 'i8', 'u1', 'U3', 'S3', 'b', 'c8', 'M8[s]'))
  shape = rng.choice(
    ((), (0,), (3,), (60,), (60, 3), (2, 5, 3), (0, 3), (1, 1))
  )
  return np.zeros(shape, kind)


def _odd_header(rng) -> bytes:
  """An array that announces anything."""
  shape = rng.choice(
    ('(10**12,)', '(1000000000000,)', '(-1,)', '(2, 3)', '(1e3,)', '((', '()')
  )
  kind = rng.choice(('<f4', '|O', '<U999999999', 'x', '|V0', '<f4,<i8'))
  text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
  header = mutated(rng, text.encode()) if rng.random() < 0.3 else text.encode()
  header = header[:60_000]
  magic = b'\x93NUMPY' + rng.choice((b'\x01\x00', b'\x02\x00', b'\x03\x00'))
  size = len(header).to_bytes(2 if magic[6] == 1 else 4, 'little')
  return magic + size + header + bytes(24)


def _hostile_npz(rng, arrays: dict) -> bytes:
  """Bytes of an `.npz`: mutated, with odd arrays or with odd headers."""
  file = io.BytesIO()
  kind = rng.randrange(3)
  if kind == 1:
    arrays = {**arrays, rng.choice(list(arrays)): _odd_array(rng)}
  rng.choice((np.savez, np.savez_compressed))(file, **arrays)
  if kind == 0:
    return mutated(rng, file.getvalue())
  if kind == 2:
    name = rng.choice(list(arrays))
    again = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(again, 'w') as new:
      for info in old.infolist():
        odd = info.filename == f'{name}.npy'
        new.writestr(info.filename, _odd_header(rng) if odd else old.read(info))
    return again.getvalue()
  return file.getvalue()


def own_npz(rng, folder):
  (folder / 'mine.npz').write_bytes(_hostile_npz(rng, _own_arrays()))
  config = config_lib.default()
  config.data_path = str(folder / 'mine.npz')
  config.data.width = config.data.stride = 8
  windows.validate(npz.load(config, None))


def packed_npz(rng, folder):
  x = np.arange(6 * 90, dtype=np.int16).reshape(6, 90)
  arrays = {
    'x': x,
    'scale': np.ones(6),
    'channels': np.array(list('abcdef')),
    'fs': np.array(50.0),
    'run_start': np.array([0, 40]),
    'run_length': np.array([40, 50]),
    'run_activity': np.array([1, 2]),
    'run_subject': np.array([1, 1]),
  }
  path = folder / 'packed.npz'
  path.write_bytes(_hostile_npz(rng, arrays))
  packed.read(path, 'fuzz', tuple('abcdef'), 2)


@functools.cache
def _texts(name: str) -> tuple[tuple[str, bytes], ...]:
  """{relative path: bytes} of a small data set in its original layout."""
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    originals.MAKE[name](root)
    return tuple(
      (str(p.relative_to(root)), p.read_bytes())
      for p in sorted(root.rglob('*'))
      if p.is_file()
    )


def original_text(rng, folder):
  """One file of a public data set is mutated."""
  name = rng.choice(list(originals.MAKE))
  for number, (path, data) in enumerate(every := _texts(name)):
    if number == 0:
      bad = rng.randrange(len(every))
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(mutated(rng, data) if number == bad else data)
  originals.load(name, folder)


def archive(rng, folder):
  """Zip files with odd names, sizes and bytes."""
  inner, outer = io.BytesIO(), io.BytesIO()
  names = ('a.txt', '../../evil', '/evil', 'C:\\evil', 'a/../../evil', 'b/')
  names += ('a.txt/b', '..', '.', 'x' * 300, 'b.zip', '\x00', 'é')
  for file in (inner, outer):
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as found:
      for _ in range(3):
        with contextlib.suppress(ValueError, IndexError):
          found.writestr(rng.choice(names), bytes(1000))
      if file is outer:
        found.writestr('inner.zip', inner.getvalue())
  data = outer.getvalue()
  home = folder / 'home'
  home.mkdir()
  (home / 'a.zip').write_bytes(
    mutated(rng, data) if rng.random() < 0.6 else data
  )
  before = {p for p in folder.parent.rglob('*') if home not in p.parents}
  try:
    download.unpack('mhealth', home / 'a.zip', home / 'in' / 'out')
  finally:
    after = {p for p in folder.parent.rglob('*') if home not in p.parents}
    assert after == before, after - before
    inside = {p.name for p in home.iterdir()} - {'a.zip', 'in'}
    assert not inside, inside


# -- Run directories -------------------------------------------------------


@functools.cache
def _run() -> pathlib.Path:
  """A run directory of the stand-in."""
  from experiments import runner
  from relief_jax import simulate
  from tests import fake_simulate

  folder = pathlib.Path(tempfile.mkdtemp()) / 'run'
  real, simulate.Simulation = simulate.Simulation, fake_simulate.Simulation
  try:
    runner.run(kills.fake_config(), folder)
  finally:
    simulate.Simulation = real
  return folder


def record_lines(rng, folder):
  path = folder / 'metrics.jsonl'
  path.write_bytes(mutated(rng, (_run() / 'metrics.jsonl').read_bytes()))
  records.read_metrics(path)
  records.half_a_line(path)
  records.truncate_metrics(path, 20)


def run_directory(rng, folder):
  """What tables and reports read."""
  name = rng.choice(('metrics.jsonl', 'summary.json', 'config.json'))
  for other in ('metrics.jsonl', 'summary.json', 'config.json'):
    data = (_run() / other).read_bytes()
    (folder / other).write_bytes(mutated(rng, data) if other == name else data)
  tables.load(folder, 'label', 0)


def checkpoint(rng, folder):
  """One file of a checkpoint: another result never comes out."""
  home = folder / 'checkpoints'
  shutil.copytree(_run() / 'checkpoints', home)
  files = sorted(p for p in (home / '30').rglob('*') if p.is_file())
  path = rng.choice(files)
  path.write_bytes(mutated(rng, path.read_bytes()))
  with Checkpoints(home) as found:
    leaves = found.read()
    assert int(leaves['round']) == found.newest


TARGETS: dict[str, Callable[[random.Random, pathlib.Path], None]] = {
  f.__name__: f
  for f in (
    fleet_csv,
    fleet_json,
    device_json,
    config_json,
    small_world,
    flags,
    own_npz,
    packed_npz,
    original_text,
    archive,
    record_lines,
    run_directory,
    checkpoint,
  )
}


def attempt(name: str, number: int) -> bool:
  """One input at one door.

  Args:
    name: in `TARGETS`.
    number: of the input.

  Returns:
    Whether it was taken; refused is the other way.

  Raises:
    Exception: whatever is none of our own errors: a crash.
  """
  with tempfile.TemporaryDirectory() as folder:
    home = pathlib.Path(folder) / 'try'
    home.mkdir()
    try:
      TARGETS[name](random.Random(f'{name} {number}'), home)
    except ACCEPTED:
      return False
  return True


def _too_slow(*_):
  raise TimeoutError(f'more than {_SECONDS} s')


def _place(error: Exception) -> str:
  """File and line of ours in which it was raised."""
  trace = traceback.extract_tb(error.__traceback__)
  ours = [
    f
    for f in trace
    if '/relief_jax/' in f.filename or '/experiments/' in f.filename
  ]
  place = ours[-1] if ours else trace[-1]
  return f'{os.path.basename(place.filename)}:{place.lineno}'


def main() -> int:
  """Prints what was tried; returns the exit code."""
  parser = argparse.ArgumentParser(prog='python -m tests.fuzz')
  parser.add_argument('--minutes', type=float, default=1.0)
  parser.add_argument('--only', default='', help='targets, joined by commas')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--again', type=int, help='one number, with a traceback')
  given = parser.parse_args()
  names = given.only.split(',') if given.only else list(TARGETS)
  cache.user_cache = lambda: None  # nobody else's copies
  warnings.simplefilter('ignore')
  absl.logging.set_verbosity(absl.logging.FATAL)
  if given.again is not None:
    print('taken' if attempt(names[0], given.again) else 'refused')
    return 0
  _run()
  soft = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
  soft = soft * resource.getpagesize() + _BYTES
  resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
  signal.signal(signal.SIGALRM, _too_slow)
  taken: collections.Counter = collections.Counter()
  refused: collections.Counter = collections.Counter()
  crashes: dict[str, str] = {}
  numbers = dict.fromkeys(names, given.seed * 10**9)
  end = time.monotonic() + 60 * given.minutes
  while time.monotonic() < end:
    for name in names:
      turn = min(end, time.monotonic() + _TURN)  # dear and cheap ones alike
      while time.monotonic() < turn:
        number = numbers[name]
        numbers[name] += 1
        signal.alarm(_SECONDS)
        try:
          (taken if attempt(name, number) else refused)[name] += 1
        except Exception as error:
          crash = f'{name} {type(error).__name__} at {_place(error)}'
          if crash not in crashes:
            crashes[crash] = f'--again={number}: {str(error)[:150]!r}'
            print(f'crash: {crash} {crashes[crash]}', flush=True)
        finally:
          signal.alarm(0)
  for name in names:
    print(f'{name:<16}{taken[name]:>8} taken {refused[name]:>8} refused')
  total = sum(taken.values()) + sum(refused.values())
  print(f'{total} inputs, {len(crashes)} kinds of crash')
  return bool(crashes)


if __name__ == '__main__':
  sys.exit(main())
