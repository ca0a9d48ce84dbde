"""Fed-SB: a small matrix between fixed factors (arXiv 2502.15436).

Of every adapter only R, r x r, trains, between an `a` and a basis that are
fixed and the same on all devices: the product is s a R basis, and the mean of R
is exact. The factors come from the first full step: in the first round devices
send the gradient of every adapted weight, whose mean G = U S V^T gives
a = U_r, basis = V_r^T and R = -(rate / s) S_r, the best adapter for a step of
the clients' rate; only the head trains in that round. *Bytes*: r^2 of every
layer both ways; in the first round i o up, and r (i + o) down to a device when
it first takes part after it.

The simulator keeps b = R basis in the place of R. Grade: published code
(https://arxiv.org/abs/2502.15436; read in the mirror
https://github.com/putssander/fed-sb). Departures: the first
step is a plain gradient over all windows of the first round's devices, of
layers whose input is several sensors with each part averaged over its owners
(**ours**).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import costs, tree
from relief_jax.aggregation import lora
from relief_jax.aggregation.mean import Mean
from relief_jax.algorithms.ffa_lora import second
from relief_jax.algorithms.parts import merges
from relief_jax.algorithms.parts.adapters import Family, Kind, Options
from relief_jax.budgets import ranks as ranks_lib
from relief_jax.clients.device import Device, Received, Update
from relief_jax.errors import InputError
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round, Server
from relief_jax.settings import Setting
from relief_jax.task import Plan, Task
from relief_jax.types import Array, PyTree


class State(NamedTuple):
  """Holds the server's state.

  Attributes:
    basis: {name of b: [R, o]}, orthonormal rows; zeros in the first round.
    started: [] bool, it is there.
    error: as in `lora.Merged`.
  """

  basis: dict[str, Array]
  started: Array
  error: Any = ()


@Facts(options=Options, adapters=True)
def fed_sb(task: Task, setting: Setting) -> Method:
  """Builds Fed-SB.

  Raises:
    InputError: the local optimiser's state is kept.
  """
  if setting.keep_client_state:
    raise InputError(
      'config.keep_client_state for fed_sb',
      'False: what trains is of another shape than the model',
      'leave it out',
    )
  family = Family(task, setting, 'fed_sb', Kind(halves=second, down=second))
  base, ranks = family.method(), family.ranks
  group = ranks_lib.leaf_groups(task)
  first_factors = {a for layer in ranks.layers for a in layer.a}
  small = np.zeros(task.num_blocks)
  for layer in ranks.layers:
    small[group[layer.b]] += ranks.rank**2

  def plan(server: Server, round: Round) -> Plan:
    found = base.plan(server, round)
    started = server.method_state.started
    numbers = family.table.counts.rest + jnp.where(started, small, 0.0)
    there, width = merges.widths(task, ranks, found.run)
    dense = (there * width).sum(-1)
    factors = ranks.rank * ((there + width) * (there > 0)).sum(-1)
    nothing = jnp.zeros_like(found.trained)
    work, samples = task.work, round.fleet.samples
    gradient = costs.step_flops(work, found.run, found.trained)
    gradient += costs.step_flops(work, found.run, nothing)
    return found._replace(
      cost=found.cost._replace(
        wire=4 * jnp.broadcast_to(numbers, (2, numbers.size)),
        upload=jnp.where(started, 0.0, 4 * dense),
        download=jnp.where(started & ~round.clients, 4 * factors, 0.0),
        flops=jnp.where(started, 0.0, samples * gradient),
      )
    )

  def gradients(params: PyTree, device: Device) -> dict[str, Array]:
    """Computes the mean gradient of every adapted weight, as `lora.pieces`."""
    nothing = lora.offsets(ranks, params)

    def add(step):
      def value(offset):
        loss = device.loss(task, base=lambda v: lora.rebased(v, offset))
        return loss(params, step)

      found = jax.grad(value)(nothing)
      return jax.tree.map(lambda v: step.weight.sum() * v, found)

    count = jnp.maximum(device.fleet.samples, 1)
    return jax.tree.map(lambda v: v / count, device.total(add))

  def told(params: PyTree, device: Device) -> PyTree:
    """Gives weights and weighted gradients of the first step."""
    found, sums = gradients(params, device), {}
    for layer in ranks.layers:
      for a, name in zip(layer.a, layer.base, strict=True):
        m = task.blocks.modality[group[a]]
        there = m < 0 or setting.fill == 'input' or device.fleet.owned[m]
        weight = jnp.where(there, device.weight[group[layer.b]], 0.0)
        sums[name] = weight, tree.scale(weight, found[name])
    return sums

  def client(received: Received, device: Device) -> Update:
    params, (basis, started, _) = received.params, received.extra
    named = tree.named_leaves(params, '/')
    inner = {k: lora.dot(named[k], v.T) for k, v in basis.items()}
    mask = tree.both(
      device.mask,
      tree.with_leaves(params, {k: k not in first_factors for k in named}),
    )

    def whole(p):
      own = tree.named_leaves(p, '/')
      return tree.with_leaves(p, {k: own[k] @ v for k, v in basis.items()})

    loss = device.loss(task)
    done = device.train(
      tree.with_leaves(params, inner), lambda p, s: loss(whole(p), s), mask
    )
    return Update(
      delta=whole(done.delta),
      weight=device.weight,
      mask=mask,
      loss=done.loss,
      sums=tree.choose(
        started,
        lambda: tree.zeros_like_output(partial(told, params, device)),
        lambda: told(params, device),
        branch=device.branch,
      ),
      client_state=device.client_state | started,
    )

  def server(state: Server, mean: Mean, round: Round) -> tuple[Server, PyTree]:
    after, mine = base.server(
      state._replace(method_state=base.init(state.params)), mean, round
    )
    known: State = state.method_state
    basis, started, new = dict(known.basis), known.started, {}
    rate = setting.client_rate(round.hparams, round.round_index)
    named = tree.named_leaves(after.params, '/')
    for layer in ranks.layers:
      found = [mean.sums[name] for name in layer.base]
      heard = jnp.stack([weight > 0 for weight, _ in found]).any()
      begins = ~known.started & heard
      started |= begins
      full = jnp.concatenate([tree.divide(g, w) for w, g in found])
      u, s, v = lora.singular(full, ranks.rank)
      middle = -rate / ranks.scale * s
      basis[layer.b] = jnp.where(begins, v, basis[layer.b])
      new[layer.b] = jnp.where(begins, middle[:, None] * v, named[layer.b])
      parts = lora.split(u, [named[a] for a in layer.a])
      for a, part in zip(layer.a, parts, strict=True):
        new[a] = jnp.where(begins, part, named[a])
    return after._replace(
      params=tree.with_leaves(after.params, new),
      method_state=State(basis, started, after.method_state.error),
    ), mine

  def init(params: PyTree) -> State:
    named = tree.named_leaves(params, '/')
    basis = {v.b: jnp.zeros_like(named[v.b]) for v in ranks.layers}
    return State(basis, jnp.zeros((), bool), base.init(params).error)

  return base._replace(
    plan=plan,
    client=client,
    server=server,
    init=init,
    report=lambda state: base.report(
      state._replace(method_state=lora.Merged(error=state.method_state.error))
    ),
    send=lambda state: Received(state.params, state.method_state),
    client_init=lambda params: jnp.zeros((), bool),
    traits=base.traits._replace(sums=True, optimizers=('sgd',)),
  )
