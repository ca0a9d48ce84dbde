"""XLA's own trace of a program, by kind of operation."""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

import jax

_LINE = re.compile(r'\s+(?:ROOT )?%([\w.\-]+) = (.*)')
_COMPUTATION = re.compile(r'(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
_CALLS = re.compile(r'(?:calls|to_apply)=%([\w.\-]+)')
_OPCODE = re.compile(r' ([a-z][\w\-]*)\(')
_CONTROL = {'conditional', 'while', 'call'}
_FILLING = {'broadcast', 'constant', 'bitcast', 'parameter', 'fusion'}


def opcodes(program: str) -> dict[str, set[str]]:
  """Maps operations to their opcodes, those inside a fusion among them.

  >>> text = '''
  ... %inside (p: f32[2]) -> f32[2] {
  ...   ROOT %d = f32[2]{0} dot(%p, %p)
  ... }
  ... ENTRY %main (a: f32[2]) -> f32[2] {
  ...   ROOT %f = f32[2]{0} fusion(%a), kind=kCustom, calls=%inside
  ... }'''
  >>> sorted(opcodes(text)['f'])
  ['dot', 'fusion']

  Args:
    program: compiled, as text.
  """
  own: dict[str, set[str]] = {}
  inside: dict[str, set[str]] = collections.defaultdict(set)
  calls: dict[str, str] = {}
  computation = ''
  for line in program.splitlines():
    begins = _COMPUTATION.match(line)
    found = _LINE.match(line)
    if begins:
      computation = begins[1]
    elif found:
      name, text = found.groups()
      opcode = _OPCODE.search(f' {text}')
      own[name] = {opcode[1]} if opcode else set()
      inside[computation] |= own[name]
      called = _CALLS.search(text)
      if called:
        calls[name] = called[1]
  return {
    name: codes | (inside[calls[name]] if name in calls else set())
    for name, codes in own.items()
  }


def kind(codes: set[str]) -> str | None:
  """Names the kind of an operation, None for a branch or a loop.

  >>> kind({'fusion', 'dot'}), kind({'fusion', 'broadcast', 'constant'})
  ('products', 'zeros')
  >>> kind({'gather', 'pad'}), kind({'add'}), kind({'while'})
  ('gathers', 'elementwise', None)
  """
  if codes & _CONTROL:
    return None
  if 'dot' in codes:
    return 'products'
  if 'gather' in codes:
    return 'gathers'
  if 'broadcast' in codes and codes <= _FILLING:
    return 'zeros'
  return 'elementwise'


def traced(call) -> dict[str, float]:
  """Traces one call: seconds of every operation, {name: seconds}."""
  jax.block_until_ready(call())
  found: dict[str, float] = collections.defaultdict(float)
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(call())
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    data = jax.profiler.ProfileData.from_file(str(path))
    for plane in data.planes:
      for line in plane.lines:
        for event in line.events:
          name = dict(event.stats).get('hlo_op')
          if name:
            found[name] += event.duration_ns / 1e9
  return found


def profile(compiled, call: Callable[[], Any], top: int) -> dict[str, Any]:
  """Measures where a program's time goes.

  Args:
    compiled: the program.
    call: runs it; is called twice, traced the second time.
    top: longest operations to list.

  Returns:
    `seconds` of all operations, `shares` of their kinds, `longest`.
  """
  codes = opcodes(compiled.as_text())
  seconds = traced(call)
  kinds = {name: kind(codes.get(name, set())) for name in seconds}
  leaves = {name: s for name, s in seconds.items() if kinds[name]}
  total = sum(leaves.values())
  shares: dict[str, float] = collections.defaultdict(float)
  for name, part in leaves.items():
    shares[str(kinds[name])] += part / total
  longest = sorted(leaves.items(), key=lambda item: -item[1])
  return {
    'seconds': total,
    'shares': dict(sorted(shares.items(), key=lambda item: -item[1])),
    'longest': dict(longest[:top]),
  }
