"""Defines the local work of one device, for methods to call: SGD on blocks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from relief_jax import tree
from relief_jax.clients.device import Device, Received, Update
from relief_jax.clients.records import Steps
from relief_jax.task import SubModel, Task
from relief_jax.types import Array, PyTree

Loss = Callable[[PyTree, Steps], Array]


def local_sgd(
  task: Task,
  *,
  objective: Callable[[Received, Device], Loss] | None = None,
  penalty: Callable[[PyTree, PyTree, Device], Array] | None = None,
  submodel: Callable[[PyTree, Device], SubModel] | None = None,
  view: Callable[[PyTree], PyTree] | None = None,
  observe: Callable[[PyTree, PyTree], PyTree] | None = None,
) -> Callable[[Received, Device], Update]:
  """Builds a client that trains its planned blocks by SGD.

  Args:
    task: the model.
    objective: gives the local loss in place of cross-entropy; its steps have
      keys.
    penalty: (params, received params, device) -> [], added to the loss.
    submodel: (params, device) -> the elements that the device holds, where
      these are not whole blocks; made inside the client map, so that no mask
      is kept per client.
    view: P -> P, the parameters that the forward pass sees, where this is the
      same on all devices.
    observe: (gradients P, updates P) -> pytree, of every local step; summed
      over the steps and sent by device, so let it be small.
  """

  def client(received: Received, device: Device) -> Update:
    params, mask, submodel_mask, see = received.params, device.mask, None, view
    if submodel:
      part = submodel(params, device)
      mask = submodel_mask = tree.both(mask, part.mask)
      see = part.view
    base = objective(received, device) if objective else device.loss(task)

    def loss(p, step):
      value = base(see(p) if see else p, step)
      return value + penalty(p, params, device) if penalty else value

    done = device.train(params, loss, mask, observe, keyed=bool(objective))
    return Update(
      delta=done.delta,
      weight=device.weight,
      mask=mask,
      loss=done.loss,
      submodel_mask=submodel_mask,
      rows=done.observed,
      client_state=device.client_state,
      opt_state=done.opt_state,
    )

  return client


def projected(
  update: Update, received: Received, project: Callable[[PyTree], PyTree]
) -> Update:
  """Projects the trained parameters before they are sent.

  Args:
    update: of the device.
    received: what it started from.
    project: P -> P.
  """
  params = received.params
  after = jax.tree.map(jnp.add, params, update.delta)
  final = tree.select(update.mask, project(after), params)
  return update._replace(delta=jax.tree.map(jnp.subtract, final, params))
