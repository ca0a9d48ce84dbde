"""FIARSE (https://github.com/HarliWu/FIARSE): magnitude is importance.

A device of capacity s_n holds the ceil(s_n |theta|) largest weights of the
whole model; the mask is looked at again in every local step, with the
threshold tau_n of the start, and the gradient passes through it by the
surrogate 1 + 2 |theta| tau / (|theta| + tau)^2. Grade: published code.
Departures: ties are broken by the weight's place, so that the count is exact;
tau is 0 at s = 1; an element's mean is over the clients whose sub-model
contained it at the start, where the code counts non-zero updates.

*Budget* (ours): the largest s in 1, 1/4, 1/16, 1/64 with s F_n <= b_n; who
does not afford the smallest sits out. *FLOPs*: the kept share of the whole
model's, a lower bound, since the mask has no structure; `flops='dense'`
charges the whole (the choice stays). *Bytes*: kept values both ways, and on
the way down a bit per element.

The weights of all layers compete, as in the code's default. A head that starts
small is in no small sub-model at first, and such a device then computes a
gradient of zero until whole devices have made the head grow. With
`threshold='layer'` every array keeps its own share.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, tree
from relief_jax.algorithms import fedavg
from relief_jax.budgets import widths
from relief_jax.clients.work import local_sgd
from relief_jax.keys import name, option
from relief_jax.rounds import frame
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round, Traits
from relief_jax.rounds.records import SubModels
from relief_jax.settings import Setting
from relief_jax.task import Plan, SubModel, Task
from relief_jax.types import Array, Fleet, PyTree

SHARES = (1.0, 1 / 4, 1 / 16, 1 / 64)


@jax.custom_vjp
def masked(value: Array, mask: Array, tau: Array) -> Array:
  """Gives `value` where it is in the sub-model and at least tau, else 0.

  Args:
    value: a parameter.
    mask: bool, of its shape, at the start of the round.
    tau: [].
  """
  return jnp.where(mask & (jnp.abs(value) >= tau), value, 0.0)


def _forward(value, mask, tau):
  return masked(value, mask, tau), (value, mask, tau)


def _backward(saved, cotangent):
  value, mask, tau = saved
  size = jnp.abs(value)
  both = jnp.where(tau > 0, jnp.square(size + tau), 1.0)
  slope = 1 + 2 * size * tau / both
  passes = mask & (size >= tau)
  return jnp.where(passes, cotangent * slope, 0.0), None, None


masked.defvjp(_forward, _backward)


def largest_weights(
  params: PyTree, shares, layer: bool = False
) -> tuple[PyTree, PyTree]:
  """Finds the ends of the top `ceil(s size)` weights, of all or each array.

  Args:
    params: P.
    shares: of the weights, numbers in (0, 1].
    layer: every array keeps its share, and not the model as a whole.

  Returns:
    The least magnitude that is kept and, of those equal to it, the last place
    in the array that is; P of [shares]. At a share of 1 the magnitude is 0.
  """

  def ends(flat):
    order = jnp.argsort(-flat, stable=True)
    count = np.array([int(np.ceil(s * flat.size)) for s in shares])
    last, whole = order[count - 1], count == flat.size
    return (
      jnp.where(whole, 0.0, flat[last]),
      jnp.where(whole, flat.size, last).astype(jnp.int32),
    )

  leaves, structure = jax.tree.flatten(params)
  sizes = [jnp.abs(v).ravel() for v in leaves]
  if layer:
    tau, last = map(list, zip(*map(ends, sizes), strict=True))
  else:
    least, place = ends(jnp.concatenate(sizes))
    first = np.cumsum([0] + [v.size for v in sizes])[:-1]
    tau, last = [least] * len(sizes), [place - at for at in first.tolist()]
  return jax.tree.unflatten(structure, tau), jax.tree.unflatten(structure, last)


def holds(params: PyTree, tau: PyTree, last: PyTree) -> PyTree:
  """Marks the elements that are kept, P bool.

  Args:
    params: P.
    tau: P of [], from `largest_weights`.
    last: P of [], from there.
  """

  def one(value, tau, last):
    place = jnp.arange(value.size).reshape(value.shape)
    size = jnp.abs(value)
    return (size > tau) | ((size == tau) & (place <= last))

  return jax.tree.map(one, params, tau, last)


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of FIARSE."""

  threshold: str = option(
    name(
      'model',
      ('model', 'layer'),
      'the largest weights of the model, or of every layer',
    )
  )
  flops: str = option(name('kept', ('kept', 'dense'), 'that are charged'))


@Facts(options=Options, budgeted=True)
def fiarse(task: Task, setting: Setting) -> Method:
  """Builds FIARSE; all at s = 1 it is FedAvg.

  Args:
    task: the model; all of its layers must train.
    setting: the round, with `Options`.

  Raises:
    InputError: a model with a frozen base: the half of LoRA that starts at
      zero would never be among the largest.
  """
  widths.required(task, 'fiarse')
  num = task.num_blocks
  shares = np.array(SHARES, np.float32)
  layer = setting.options.threshold == 'layer'

  def priced(share: Array, work):
    """Computes the work of a share of the model, its sizes apart."""
    return work.replace(
      shared=share * work.shared,
      fwd=share * work.fwd,
      wgrad=share * work.wgrad,
      agrad=share * work.agrad,
    )

  priced_levels = jax.vmap(lambda s: priced(s, task.work))(shares)

  def largest(round: Round) -> tuple[Plan, Array]:
    """Gives the plan where all fits, and the place in SHARES of what does."""
    whole = fedavg.everybody(setting, round)
    return whole, widths.largest(priced_levels, whole, round.budget)

  def plan(server, round: Round) -> Plan:
    whole, found = largest(round)
    ends = largest_weights(server.params, SHARES, layer)

    def kept(ends) -> Array:
      kept = holds(server.params, *ends)
      count = jax.tree.map(lambda v: v.sum().astype(jnp.float32), kept)
      return tree.group_sum(task.groups, count, num)

    levels = priced_levels
    level = jnp.minimum(found, len(SHARES) - 1)
    if setting.options.flops == 'dense':
      levels = jax.vmap(lambda s: task.work)(shares)
    levels = levels.replace(size=jax.lax.map(kept, ends))
    narrow = widths.narrow(
      whole,
      found < len(SHARES),
      jax.tree.map(lambda v: v[level], ends),
      jax.tree.map(lambda v: v[level], levels),
    )
    received = blocks.owned_groups(narrow.run, task.blocks.modality)
    bits = jnp.where(received, task.work.size, 0.0).sum(-1)
    bitmask = jnp.where(level > 0, jnp.ceil(bits / 8), 0.0)
    return narrow._replace(cost=narrow.cost._replace(download=bitmask))

  def largest_share(params, device) -> SubModel:
    tau, last = device.args
    mask = holds(params, tau, last)

    def view(params):
      return jax.tree.map(masked, params, mask, tau)

    return SubModel(mask, view)

  def device_submodels(params, done: Array, fleet: Fleet, hparams) -> SubModels:
    """Gives each device's share of the weights, as it would be sent now."""
    last_round = frame.last(task, setting, hparams, fleet, done)
    level = jnp.minimum(largest(last_round)[1], len(SHARES) - 1)
    tau, last = largest_weights(params, SHARES, layer)
    models = []
    for i in range(1, len(SHARES)):
      ends = jax.tree.map(lambda v, i=i: v[i], (tau, last))
      kept = jax.tree.map(masked, params, holds(params, *ends), ends[0])
      models.append((task, kept))
    return SubModels(level, tuple(models))

  return fedavg.fedavg(task, setting)._replace(
    plan=plan,
    client=local_sgd(task, submodel=largest_share),
    device_submodels=device_submodels,
    traits=Traits(submodels=True),
  )
