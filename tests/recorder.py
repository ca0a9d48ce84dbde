"""Records what every method computes, to the bit; a tool for one redesign.

    python -m tests.recorder record FILE [PATTERN]
    python -m tests.recorder compare FILE [PATTERN]

A case is a method with options, a backbone, a layout and one feature of a
round. Three rounds of it run in one program, and every array of the parameters,
the state and the info has a digest. `compare` says which arrays changed.
Arrays of the state are told apart by their bits and not by their names: where
they are kept may change.
"""

import fnmatch
import hashlib
import json
import logging
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from relief_jax import algorithms, simulate
from relief_jax.errors import InputError
from relief_jax.runs import program
from tests.support import tiny

MID = '1.75*tight'
# Fields of the info that have another name now.
RENAMED = {
  '.found': ".extra['weight_factor']",
  '.dropped': ".extra['dropped']",
  '.cosines': ".extra['similarity']",
  '.online.right': '.online.correct',
  '.online.tested': '.online.arrived_samples',
}
# Methods that are tried with every feature.
WHOLE = ('fedavg', 'feddrop', 'flism', 'relief')
LAYOUTS = ('one', 'block:2', 'all', 'one@2')
FEATURES: dict[str, dict[str, Any]] = {
  'plain': {},
  'int8': {'uplink_codec.name': 'int8', 'downlink_codec.name': 'int8'},
  'feedback': {
    'uplink_codec.name': 'top_k',
    'downlink_codec.name': 'top_k',
    'downlink_codec.error_feedback': 'on',
  },
  'guard': {
    'nonfinite': 'drop',
    'hparams.clip_norm': 0.05,
    'faults.share': 0.4,
    'faults.kind': 'nan',
  },
  'noise': {'faults.share': 0.4, 'faults.kind': 'noise'},
  'median': {'mean': 'median'},
  'online': {
    'online.missing.kind': 'each',
    'online.missing.rate': 0.3,
    'online.presence.kind': 'each',
    'online.presence.rate': 0.8,
    'online.stream.buffer': 4,
    'online.stream.arrive': 2,
  },
  'late': {'online.pace.wait': 1.0, 'online.pace.late': 'partial'},
  'momentum': {'keep_client_state': True, 'clients_per_round': 4},
  'epochs': {'local_epochs': 1, 'weight': 'samples'},
  'dropout': {'modality_dropout': 0.4, 'server_optimizer': 'adam'},
  'similarity': {'update_similarity': 3, 'deadline_end': 'full'},
}
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
  'relief:cosine': ('relief', {'relief.norm': 'cosine'}),
  'relief:shrinkage': ('relief', {'relief.shrinkage': True}),
  'relief:confidence': ('relief', {'relief.confidence': True}),
  'relief:aged': ('relief', {'relief.rule': 'aged', 'relief.max_stale': 2}),
  'relief:random': ('relief', {'relief.rule': 'random'}),
  'relief:round_robin': ('relief', {'relief.rule': 'round_robin'}),
  'relief:knapsack': ('relief', {'relief.rule': 'knapsack'}),
  'relief:cohort': ('relief', {'relief.denominator': 'cohort'}),
  'feddrop:all': ('feddrop', {'feddrop.denominator': 'all'}),
  'feddrop:exact': ('feddrop', {'feddrop.exact': True, 'feddrop.rate': 'sqrt'}),
  'heterofl:inf': ('heterofl', {'heterofl.masked': 'inf'}),
  'depthfl:last': ('depthfl', {'depthfl.exits': 'last'}),
  'fiarse:layer': ('fiarse', {'fiarse.threshold': 'layer'}),
  'flism:kd': ('flism', {'flism.kd': 0.5, 'flism.contrast': False}),
  'fedavg:skip': ('fedavg', {'fill': 'skip'}),
  'pmm:owners': ('pmm', {'pmm.owners': True, 'pmm.bits': 8}),
  'qqr_style:mix': ('qqr_style', {'qqr_style.mix': True}),
  'fedpmt:input': ('fedpmt', {'fedpmt.side': 'input'}),
}


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
  """Gives names and keys: features in full, the rest in turn."""
  count = 0
  both = {name: (name, {}) for name in sorted(algorithms.ALGORITHMS)} | OPTIONS
  for place, (label, (method, options)) in enumerate(both.items()):
    features = ['plain', 'late']
    if label == method:
      # Each of them for a few methods, half of them in turn for the others.
      rest = [name for name in FEATURES if name != 'plain']
      half = rest if method in WHOLE else rest[place % 2 :: 2]
      features = ['plain', *half]
    for feature in features:
      layout = LAYOUTS[(count + count // 12) % 4]
      backbones = ('cnn', 'lora') if feature == 'plain' else ('cnn',)
      if feature not in ('plain', 'online') and count % 5 == 0:
        backbones = ('lora',)
      count += 1
      for backbone in backbones:
        yield (
          f'{label}/{backbone}/{layout}/{feature}',
          {
            'method': method,
            'backbone': backbone,
            'model.adapters': backbone == 'lora',
            'layout': layout,
            **options,
            **FEATURES[feature],
          },
        )


def digest(value) -> str:
  """Gives a name to an array's bits."""
  if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
    value = jax.random.key_data(value)
  value = np.asarray(value)
  found = hashlib.sha256(f'{value.shape} {value.dtype}'.encode())
  found.update(value.tobytes())
  return found.hexdigest()[:16]


def run(keys: dict[str, Any]) -> dict[str, Any]:
  """Runs a case.

  Returns:
    Digests of `params` and `state` in the order of their leaves, and of every
    field of the `info`.
  """
  config = tiny.config(
    **{
      'rounds': 3,
      'rounds_per_call': 3,
      'eval_every': 3,
      'hparams.client_lr': 0.05,
      'model.groups': 'layer',
      'deadline': MID,
      'devices': 0,
      **keys,
    }
  )
  found = simulate.Simulation(config)
  runner = program.runner(found.algorithm, found.call)
  state, info = jax.jit(runner, compiler_options=tiny.QUICK)(*found.arguments())
  fields = jax.tree_util.tree_flatten_with_path(info)[0]
  return {
    'params': [digest(v) for v in jax.tree.leaves(found.params_of(state))],
    'state': [digest(v) for v in jax.tree.leaves(state)],
    'info': {jax.tree_util.keystr(path): digest(v) for path, v in fields},
  }


def changed(found: dict[str, Any], want: dict[str, Any]) -> list[str]:
  """Names what differs between two records of a case."""
  if 'refused' in found or 'refused' in want:
    return [] if found == want else [f'{found} and not {want}']
  wrong = []
  if found['params'] != want['params']:
    wrong.append('params')
  lost = [v for v in want['state'] if v not in found['state']]
  if lost:
    wrong.append(f'{len(lost)} of {len(want["state"])} arrays of the state')
  mine, theirs = found['info'], want['info']
  wrong += [k for k in theirs if mine.get(RENAMED.get(k, k)) != theirs[k]]
  return wrong


def main() -> int:
  """Records or compares; the exit code tells whether something changed."""
  what, path, *pattern = sys.argv[1:]
  jax.config.update('jax_num_cpu_devices', 2)
  logging.disable(logging.WARNING)
  file = pathlib.Path(path)
  known = json.loads(file.read_text()) if file.exists() else {}
  bad = same = 0
  for name, keys in cases():
    if not fnmatch.fnmatch(name, (pattern or ['*'])[0]):
      continue
    if (what == 'record') == (name in known):
      continue
    begun = time.perf_counter()
    try:
      found = run(keys)
    except InputError as error:
      found = {'refused': type(error).__name__}
    except Exception as error:  # one broken case hides no other
      found = {'refused': f'{type(error).__name__}: {error}'[:300]}
    if what == 'record':
      known[name] = found
      file.write_text(json.dumps(known))
      seconds = time.perf_counter() - begun
      print(name, found.get('refused', ''), f'{seconds:.1f} s', flush=True)
      continue
    wrong = changed(found, known[name])
    bad += bool(wrong)
    same += not wrong
    if wrong:
      print('CHANGED', name, wrong, flush=True)
  if what == 'compare':
    print(f'{same} cases equal to the bit, {bad} changed')
  return min(bad, 1)


if __name__ == '__main__':
  sys.exit(main())
