"""Runs a client function over a cohort: the one file that knows the layout.

Authors of algorithms and models write *one client*. Three layouts make the
same round of it (they agree to rounding, since only the order of sums
differs):

- one at a time (`block=1`): a scan over clients and no vmap at all, so that
  `lax.cond` really skips absent encoders; by far the fastest on CPU.
- blocks (`block=b`): vmap within a block, scan over blocks; bounds memory.
- all at once (`block=0`): one vmap, for small models on a GPU or TPU.

A fourth one, `debug`, is a loop in Python.

With a mesh the clients are divided over its devices by `shard_map` and the sums
end in one `psum`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax.microbatching
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from relief_jax import tree
from relief_jax.engine import ambient, debug
from relief_jax.errors import InputError
from relief_jax.types import Array, PyTree

AXIS = 'clients'
OPEN = ('auto', 'tune')  # names that leave the layout to be found
NAMES = (*OPEN, 'one', 'all', 'debug')
OTHERS = "'block:<clients>', all but 'tune' also with '@<devices>'"
_LAYOUT = re.compile(
  '(?:(auto|one|all|debug)|block:([1-9][0-9]*))(?:@([1-9][0-9]*))?'
)


class Layout(NamedTuple):
  """Describes the layout of clients; cannot change results beyond rounding.

  Attributes:
    block: clients trained together; 1 one at a time, 0 all at once.
    mesh: a mesh with the axis `clients`, or None for one device.
    debug: one after the other in Python, without jit (engine/debug.py).
  """

  block: int = 1
  mesh: Mesh | None = None
  debug: bool = False

  @property
  def devices(self) -> int:
    return self.mesh.size if self.mesh else 1

  @property
  def branch(self) -> bool:
    """Tells whether a `lax.cond` on client values skips work: no vmap."""
    return self.block == 1

  def __str__(self):
    name = {0: 'all', 1: 'one'}.get(self.block, f'block:{self.block}')
    if self.debug:
      return 'debug'
    text = f'{name} on {self.devices} device(s)'
    count = jax.process_count() if self.mesh else 1
    return text + (f' of {count} processes' if count > 1 else '')


def is_layout(name: str) -> bool:
  """Tells whether `parse_layout` can read a name."""
  return _LAYOUT.fullmatch(name) is not None


def parse_layout(name: str, devices: int = 0) -> Layout:
  """Reads the config's `layout` and `devices`.

  Args:
    name: `auto` (one at a time on CPU, all at once elsewhere), `one`,
      `block:<clients>` or `all`; with `@<devices>` on so many of them only.
      `debug` always takes one device.
    devices: how many of each process's own devices; 0 for all of them.

  Raises:
    InputError: an unknown name, or more devices than there are.
  """
  found = _LAYOUT.fullmatch(name)
  if found is None:
    raise InputError(
      f'config.layout is {name!r}',
      f'{", ".join(map(repr, NAMES))}, {OTHERS}',
      'set --config.layout=auto',
    )
  kind, size, fewer = found.groups()
  if kind == 'debug':
    count = jax.process_count()
    if fewer not in (None, '1') or count > 1:
      raise InputError(
        f'config.layout is {name!r}'
        + (f' in {count} processes' if count > 1 else ''),
        'debug on one device of one process',
        'set --config.layout=debug and start one process',
      )
    return Layout(debug=True)
  block = int(size or 0)
  if kind == 'one' or kind == 'auto' and jax.default_backend() == 'cpu':
    block = 1
  most = jax.local_device_count()
  if devices < 0 or devices > most:
    raise InputError(
      f'config.devices is {devices}',
      f'0 for all, or up to the {most} device(s) that JAX sees',
      'on CPU virtual devices must be asked for before JAX starts '
      '(relief_jax.simulate.set_devices)',
    )
  most = devices or most
  count = int(fewer or most)
  if count > most:
    raise InputError(
      f'config.layout is {name!r}',
      f'at most the {most} device(s) that may be used',
      'leave @ and the number out, or set --config.layout=auto',
    )
  return Layout(block, clients_mesh(count))


def map_reduce(
  client: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
  shared: PyTree,
  rows: PyTree,
  layout: Layout,
  work: Array | None = None,
) -> tuple[PyTree, PyTree]:
  """Sums a client's first output over the cohort, stacks its second.

  Args:
    client: (shared, row of one client) -> (sums, record).
    shared: what all clients see; replicated over devices.
    rows: [K, ...]; a row of zeros must contribute nothing, since K is padded
      with such rows to a multiple of block times devices.
    layout: of the clients.
    work: [K] predicted work of each client. With several devices the clients
      are distributed in its order, so that no device waits for another.

  Returns:
    The sums over K, and the records [K, ...].
  """
  return over_devices(
    lambda shared, rows, each: each(client, shared, rows),
    shared,
    rows,
    layout,
    work,
  )


# (client, shared, rows) -> (sums over all clients, records): see `each_client`.
Each = Callable[[Callable, PyTree, PyTree], tuple[PyTree, PyTree]]


def over_devices(
  body: Callable[[PyTree, PyTree, Each], tuple[PyTree, PyTree]],
  shared: PyTree,
  rows: PyTree,
  layout: Layout,
  work: Array | None = None,
) -> tuple[PyTree, PyTree]:
  """Runs a body on every device of the mesh, each with its own clients.

  With `each` the body maps a client function over the cohort, as often as it
  wants: the sums that it gets are over *all* clients, those on other devices
  included, so that a reduction may stand inside a loop over local steps.

  Args:
    body: (shared, rows of this device, each) -> (common, records). `common`
      must be the same on all devices, made of `shared` and of sums; `records`
      have an entry per row.
    shared: what all clients see; replicated over devices.
    rows: as in `map_reduce`.
    layout: of the clients.
    work: as in `map_reduce`.

  Returns:
    What is common, and the records [K, ...].
  """
  cohort = jax.tree.leaves(rows)[0].shape[0]
  block = layout.block or -(-cohort // layout.devices)
  total = cohort + -cohort % (block * layout.devices)

  def pad(v):
    return jnp.pad(v, ((0, total - cohort),) + ((0, 0),) * (v.ndim - 1))

  rows = jax.tree.map(pad, rows)
  if layout.devices > 1:
    order = jnp.arange(total)
    if work is not None:
      order = jnp.argsort(pad(-work))
    deal = order.reshape(-1, layout.devices).T.reshape(-1)
    rows = jax.tree.map(lambda r: r[deal], rows)

  def run(shared, rows):
    return body(shared, rows, partial(each_client, block, layout))

  if layout.mesh:
    # check_vma refuses a cond one branch of which is constant zeros.
    run = jax.shard_map(
      run,
      mesh=layout.mesh,
      in_specs=(P(), P(AXIS)),
      out_specs=(P(), P(AXIS)),
      check_vma=False,
    )
  common, records = run(shared, rows)
  if layout.devices > 1:
    back = jnp.argsort(deal)
    records = jax.tree.map(lambda r: r[back], records)
  return common, jax.tree.map(lambda r: r[:cohort], records)


def each_client(
  block: int,
  layout: Layout,
  client: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
  shared: PyTree,
  rows: PyTree,
) -> tuple[PyTree, PyTree]:
  """Maps a client function over the rows of one device.

  Args:
    block: clients trained together; their number divides that of the rows.
    layout: of the clients.
    client: (shared, row of one client) -> (sums, record).
    shared: what all clients see.
    rows: [k, ...], of this device.

  Returns:
    The sums over the clients of all devices, and the records [k, ...].
  """

  if layout.debug:
    return _in_python(client, shared, rows)
  one = tree.traced_once(partial(client, shared))
  if block == 1:
    first = jax.tree.map(lambda r: r[0], rows)
    zeros = tree.zeros_like_output(lambda r: one(r)[0], first)

    def body(sums, row):
      more, record = one(row)
      return jax.tree.map(jnp.add, sums, more), record

    sums, records = jax.lax.scan(body, zeros, rows)
  else:
    kind = optax.microbatching.AccumulationType
    sums, records = optax.microbatching.micro_vmap(
      one,
      in_axes=0,
      microbatch_size=block,
      accumulator=(kind.SUM, kind.CONCAT),
    )(rows)
  if layout.mesh:
    sums = jax.lax.psum(sums, AXIS)
  return sums, records


def _in_python(client, shared: PyTree, rows: PyTree) -> tuple[PyTree, PyTree]:
  """Maps a client function over rows in a loop; see `each_client`."""
  found = []
  for k in range(jax.tree.leaves(rows)[0].shape[0]):
    row = jax.tree.map(lambda r, k=k: r[k], rows)
    with debug.located(shared, row):
      found.append(client(shared, row))
  sums, records = zip(*found, strict=True)
  return (
    jax.tree.map(lambda *v: sum(v), *sums),
    jax.tree.map(lambda *v: jnp.stack(v), *records),
  )


def clients_mesh(count: int) -> Mesh | None:
  """Builds a mesh over `count` devices of every process; None for one device.

  Raises:
    InputError: a process has fewer.
  """
  if count == 1 and jax.process_count() == 1:
    return None
  devices = []
  for process in range(jax.process_count()):
    own = [d for d in jax.devices() if d.process_index == process]
    if len(own) < count:
      raise InputError(
        f'{len(own)} device(s) in process {process}',
        f'{count} as in the others',
        f'set --config.devices={len(own)}',
      )
    devices += own[:count]
  return jax.make_mesh(
    (len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
  )


def replicate(value: PyTree, layout: Layout) -> PyTree:
  """Puts arrays on all devices of the mesh, each whole.

  Args:
    value: the same arrays in every process, keys among them.
    layout: of the clients.
  """
  if layout.mesh is None:
    return value
  everywhere = NamedSharding(layout.mesh, P())
  if jax.process_count() == 1:
    return jax.device_put(value, everywhere)

  def put(v):
    if jnp.issubdtype(v.dtype, jax.dtypes.prng_key):
      return ambient.of_words(put(jax.random.key_data(v)))
    host = np.asarray(v)
    return jax.make_array_from_callback(
      host.shape, everywhere, lambda index: host[index]
    )

  return jax.tree.map(put, value)


def shard_rows(
  make: Callable[[int, int], np.ndarray],
  shape: tuple[int, int],
  layout: Layout,
) -> Array:
  """Builds a table of a row per client, sharded over the devices of the mesh.

  Every process makes and holds only the rows that its own devices hold.

  Args:
    make: (first, last) -> those rows, [last - first, W].
    shape: [N, W] of the whole table.
    layout: of the clients.

  Returns:
    [N, W], and with a mesh rows of zeros up to a multiple of its size.
  """
  if layout.mesh is None:
    return jnp.asarray(make(0, shape[0]))
  each = -(-shape[0] // layout.devices)

  def part(index):
    first = min(index[0].start or 0, shape[0])
    rows = make(first, min(first + each, shape[0]))
    return np.pad(rows, ((0, each - len(rows)), (0, 0)))

  return jax.make_array_from_callback(
    (each * layout.devices, shape[1]),
    NamedSharding(layout.mesh, P(AXIS)),
    part,
  )


def local(value: PyTree) -> PyTree:
  """Gives this process's own copy of replicated arrays, on one device."""
  return jax.tree.map(lambda v: v.addressable_data(0), value)
