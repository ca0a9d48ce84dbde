"""Everything that takes input from outside, each as a function of a draw.

A door is `(rng, folder)`: it makes one input, valid or not, in an empty folder,
and lets it in. It returns where the input was taken and raises where not. Who
draws is `fuzz/fuzz.py` at random, or `fuzz/guided.py` by what the code does.
"""

import contextlib
import functools
import io
import json
import pathlib
import random
import shutil
import tempfile
import zipfile
from collections.abc import Callable

import numpy as np

from relief_jax import config as config_lib
from relief_jax import keys, world
from relief_jax.campaign import points
from relief_jax.cli import config_lookup
from relief_jax.config import validation
from relief_jax.datasets import download, npz, packed, windows
from relief_jax.devices import figures
from relief_jax.engine import placement
from relief_jax.report import gather
from relief_jax.storage import records
from relief_jax.storage.checkpoints import Checkpoints
from relief_jax.world import fleet_files
from tests.datasets import originals
from tests.faults import kills
from tests.fuzz.mutations import mutated, value
from tests.support import tiny

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
  return tuple(keys.flatten(records.clean(config_lib.default())))


def config_json(rng, folder):
  """A file as `--config` takes it, and what is checked before any work."""
  values = records.clean(config_lib.default())
  if rng.random() < 0.5:
    text = mutated(rng, json.dumps(values).encode())
  else:
    flat = keys.flatten(values)
    for _ in range(rng.randint(1, 3)):
      flat[rng.choice(_keys())] = value(rng)
    text = json.dumps(keys.nested(flat)).encode()
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
    records.override(config, keys.nested({key: rng.choice(choices)}))
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
    lambda: points.parse_shard(text),
    lambda: points.split_argv(['x', points.PREFIX + text]),
    lambda: placement.parse_layout(text, 1),
    lambda: config_lookup.rewrite(['x', f'--config={text}']),
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
def stored_run() -> pathlib.Path:
  """A run directory of the stand-in."""
  from relief_jax.runs import simulation
  from relief_jax.storage import runner
  from tests.support import fake_simulate

  folder = pathlib.Path(tempfile.mkdtemp()) / 'run'
  real, simulation.Simulation = simulation.Simulation, fake_simulate.Simulation
  try:
    runner.run(kills.fake_config(), folder)
  finally:
    simulation.Simulation = real
  return folder


def record_lines(rng, folder):
  path = folder / 'metrics.jsonl'
  path.write_bytes(mutated(rng, (stored_run() / 'metrics.jsonl').read_bytes()))
  records.read_metrics(path)
  records.half_a_line(path)
  records.truncate_metrics(path, 20)


def run_directory(rng, folder):
  """What tables and reports read."""
  name = rng.choice(('metrics.jsonl', 'summary.json', 'config.json'))
  for other in ('metrics.jsonl', 'summary.json', 'config.json'):
    data = (stored_run() / other).read_bytes()
    (folder / other).write_bytes(mutated(rng, data) if other == name else data)
  gather.load(folder, 'label')


def checkpoint(rng, folder):
  """One file of a checkpoint: another result never comes out."""
  home = folder / 'checkpoints'
  shutil.copytree(stored_run() / 'checkpoints', home)
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
