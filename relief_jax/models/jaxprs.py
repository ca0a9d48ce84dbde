"""Flattens a jaxpr into one list of operations with their FLOPs.

What calls another jaxpr (jit, remat, custom derivatives) is put in its place;
the body of a scan is there once, its FLOPs times its length; of a `cond` the
dearest branch is charged. Convention (**ours**, that of the hand counts in
encoders.py): a product is 2 FLOPs a term, what works number by number is 1 FLOP
a number, copies and index arithmetic are free.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from relief_jax.errors import InputError

# Copies: they move numbers and compute none.
COPIES = frozenset(
  'reshape broadcast_in_dim transpose squeeze expand_dims slice dynamic_slice '
  'dynamic_update_slice concatenate pad gather convert_element_type copy '
  'copy_p stop_gradient rev bitcast_convert_type split device_put '
  'sharding_constraint optimization_barrier name reduce_precision alias '
  'scatter'.split()
)
_FREE = COPIES | {
  'iota',
  'threefry2x32',
  'random_bits',
  'random_fold_in',
  'random_seed',
  'random_split',
  'random_wrap',
  'random_unwrap',
  'create_token',
}
_BY_INPUT = ('reduce', 'arg', 'cum', 'scatter', 'sort', 'top_k')
_WINDOWS = ('reduce_window', 'select_and_scatter', 'select_and_gather')


class Op(NamedTuple):
  """Describes one operation.

  Attributes:
    name: of the primitive, `alias` for what goes in and out of a body.
    flops: of all its repetitions.
    ins: numbers of the values it reads.
    outs: numbers of the values it writes.
  """

  name: str
  flops: float
  ins: tuple[int, ...]
  outs: tuple[int, ...]

  @property
  def copies(self) -> bool:
    """Tells whether it only moves numbers."""
    return self.name in COPIES


class Flat(NamedTuple):
  """Holds a program as one list.

  Attributes:
    ops: in an order of execution; a scan's carry leads back in it.
    nbytes: of every value, by its number.
    ins: numbers of the arguments.
    outs: numbers of the results; None for a constant.
  """

  ops: list[Op]
  nbytes: list[int]
  ins: tuple[int, ...]
  outs: tuple[int | None, ...]


def flatten(closed: core.ClosedJaxpr) -> Flat:
  """Flattens a program from `jax.make_jaxpr`.

  Raises:
    InputError: a loop of unknown length, or an operation that hides its work.
  """
  walk = _Walk()
  ins = [walk.new(v.aval) for v in closed.jaxpr.invars]
  outs = walk.inline(closed, ins, 1.0)
  return Flat(walk.ops, walk.nbytes, tuple(ins), tuple(outs))


class _Walk:
  """Collects operations; every value of every call has a number of its own."""

  def __init__(self) -> None:
    self.ops: list[Op] = []
    self.nbytes: list[int] = []

  def new(self, aval: Any) -> int:
    size = math.prod(getattr(aval, 'shape', ()))
    kind = getattr(aval, 'dtype', None)
    width = kind.itemsize if isinstance(kind, np.dtype) else 0
    self.nbytes.append(size * width)
    return len(self.nbytes) - 1

  def alias(self, source: int | None, target: int) -> None:
    if source is not None:
      self.ops.append(Op('alias', 0.0, (source,), (target,)))

  def inline(self, program: Any, ins: Iterable[int | None], times: float):
    """Adds the operations of a jaxpr, closed or not; numbers of its results."""
    jaxpr = getattr(program, 'jaxpr', program)
    known: dict[Any, int | None] = {v: None for v in jaxpr.constvars}
    known.update(zip(jaxpr.invars, ins, strict=True))

    def number(atom):
      return None if isinstance(atom, core.Literal) else known[atom]

    for eqn in jaxpr.eqns:
      given = [number(v) for v in eqn.invars]
      outs = [self.new(v.aval) for v in eqn.outvars]
      self.equation(eqn, given, outs, times)
      known.update(zip(eqn.outvars, outs, strict=True))
    return [number(v) for v in jaxpr.outvars]

  def equation(self, eqn, given, outs, times) -> None:
    name = eqn.primitive.name
    if name == 'scan':
      self.scan(eqn, given, outs, times)
    elif name == 'cond':
      self.cond(eqn, given, outs, times)
    elif name == 'while':
      raise InputError(
        'a model with a loop whose length depends on its numbers (`while`)',
        'a program whose FLOPs can be counted',
        'write it with jax.lax.scan, or a fori_loop of constant bounds',
      )
    elif program := _called(eqn):
      found = self.inline(program, given, times)
      for source, target in zip(found, outs, strict=True):
        self.alias(source, target)
    else:
      read = tuple(v for v in given if v is not None)
      self.ops.append(Op(name, times * flops(eqn), read, tuple(outs)))

  def scan(self, eqn, given, outs, times) -> None:
    params = eqn.params
    body, length = params['jaxpr'], params['length']
    consts, carry = params['num_consts'], params['num_carry']
    inner = [self.new(v.aval) for v in body.jaxpr.invars]
    for source, target in zip(given, inner, strict=True):
      self.alias(source, target)
    found = self.inline(body, inner, times * length)
    for source, target in zip(found, outs, strict=True):
      self.alias(source, target)
    around = inner[consts : consts + carry]
    for source, target in zip(found[:carry], around, strict=True):
      self.alias(source, target)

  def cond(self, eqn, given, outs, times) -> None:
    branches = eqn.params['branches']
    works = []
    for branch in branches:
      own = _Walk()
      own.inline(branch, [own.new(v.aval) for v in branch.jaxpr.invars], 1.0)
      works.append(sum(op.flops for op in own.ops))
    dearest = int(np.argmax(works))
    for i, branch in enumerate(branches):
      # The others count nothing, but what they read is needed all the same.
      found = self.inline(branch, given[1:], times if i == dearest else 0.0)
      for source, target in zip(found, outs, strict=True):
        self.alias(source, target)


def _called(eqn) -> Any:
  """Finds the jaxpr that an equation calls as it is; None for none.

  Raises:
    InputError: it has one, but its arguments are others.
  """
  inner = [
    v
    for v in eqn.params.values()
    if isinstance(v, core.Jaxpr | core.ClosedJaxpr)
  ]
  if not inner or eqn.primitive.name.startswith((*_BY_INPUT, *_WINDOWS)):
    return None
  jaxpr = getattr(inner[0], 'jaxpr', inner[0])
  if len(inner) > 1 or len(jaxpr.invars) != len(eqn.invars):
    raise InputError(
      f'a model with the operation {eqn.primitive.name!r}',
      'operations whose FLOPs are known',
      'use the plain JAX form of it, no kernel of its own',
    )
  return inner[0]


def _size(atoms) -> int:
  return sum(math.prod(v.aval.shape) for v in atoms)


def flops(eqn) -> float:
  """Counts the FLOPs of one equation that calls no other jaxpr."""
  name = eqn.primitive.name
  if name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    shape = eqn.invars[0].aval.shape
    return 2.0 * _size(eqn.outvars) * math.prod(shape[i] for i in contracted)
  if name == 'conv_general_dilated':
    return _convolution(eqn)
  if name in _FREE or not any(_inexact(v) for v in eqn.invars):
    return 0.0
  if name.startswith(_WINDOWS):  # before `reduce`
    window = math.prod(eqn.params.get('window_dimensions', (1,)))
    return float(window * _size(eqn.outvars))
  if name.startswith('scatter'):  # operand, indices, updates
    return float(_size(eqn.invars[2:3]))
  if name.startswith(_BY_INPUT):
    return float(_size(eqn.invars))
  return float(_size(eqn.outvars))


def _inexact(atom) -> bool:
  kind = getattr(atom.aval, 'dtype', None)
  return kind is not None and jnp.issubdtype(kind, jnp.inexact)


def _convolution(eqn) -> float:
  """Counts a convolution or one of its gradients.

  Every output meets all taps; seen from the input, every input does. The lower
  of the two leaves out the zeros between dilated inputs: the gradient of a
  strided convolution costs what the convolution does.
  """
  left, right = (v.aval.shape for v in eqn.invars)
  spec = eqn.params['dimension_numbers'].rhs_spec
  taps = math.prod(right[i] for i in spec[2:])
  groups = eqn.params['feature_group_count'] * eqn.params['batch_group_count']
  forward = _size(eqn.outvars) * taps * right[spec[1]]
  backward = math.prod(left) * taps * right[spec[0]] / groups
  return 2.0 * min(forward, backward)
