"""Keeps blocks on the devices: makes one method of another."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax import blocks, tree
from relief_jax.rounds.method import Method
from relief_jax.task import Task
from relief_jax.types import PyTree


def personal(task: Task, method: Method, keep: np.ndarray | PyTree) -> Method:
  """Keeps blocks on the devices: trained there, never sent nor averaged.

  Every device starts with the initial model. What it keeps lies in the client
  store, [N, ...] of the kept parameters only.

  Args:
    task: the model.
    method: of the other blocks; its plan says what is trained.
    keep: [G] bool, static; or P of bools (a dict), where parts of blocks are
      kept: then the method's plan says what of a block is sent. Where nothing
      is kept it is the method itself.
  """
  if not isinstance(keep, Mapping):
    whole = np.asarray(keep, bool)
    own = jax.tree.map(lambda g: bool(whole[g]), task.groups)
    parts = jax.tree.map(lambda g: False, task.groups)
  else:
    groups, own = blocks.leaf_groups(task), keep
    whole = np.ones(task.num_blocks, bool)
    for k, g in zip(*map(jax.tree.leaves, (own, groups)), strict=True):
      whole[g] &= k
    parts = jax.tree.map(lambda k, g: k and not whole[g], own, groups)
  if not any(jax.tree.leaves(own)):
    return method

  kept, joined = partial(tree.part, own), partial(tree.join, own)

  def plan(server, round):
    found = method.plan(server, round._replace(clients=round.clients[1]))
    return found._replace(
      counted=jnp.where(whole[None], 0.0, found.counted),
      private=whole if found.private is None else whole | found.private,
    )

  def client(received, device):
    mine, inner = device.client_state
    start = joined(mine, received.params)
    update = method.client(
      received._replace(params=start), device._replace(client_state=inner)
    )
    after = kept(jax.tree.map(jnp.add, start, update.delta))
    sent = jax.tree.map(
      lambda k, d: jax.tree.map(jnp.zeros_like, d) if k else d,
      parts,
      update.delta,
    )
    return update._replace(
      delta=sent,
      weight=jnp.where(whole, 0.0, update.weight),
      client_state=(after, update.client_state),
    )

  def server(state, mean, round):
    mine, inner = round.clients
    state, inner = method.server(state, mean, round._replace(clients=inner))
    return state, (mine, inner)

  def evaluate(state, clients):
    mine, inner = clients
    count = jax.tree.leaves(mine)[0].shape[0]

    def leaf(k, a, b):
      if k:
        return a
      return jax.tree.map(lambda v: jnp.broadcast_to(v, (count, *v.shape)), b)

    return jax.tree.map(leaf, own, mine, method.evaluate(state, inner))

  return method._replace(
    plan=plan,
    client=client,
    server=server,
    client_init=lambda params: (kept(params), method.client_init(params)),
    model=lambda received, kept: joined(kept[0], received.params),
    evaluate=evaluate,
    traits=method.traits._replace(personal=True, silent=bool(whole.all())),
  )
