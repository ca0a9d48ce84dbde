"""Chains treatments of an update between training and mean, as pieces.

    train -> (inject faults) -> finite? -> clip -> noise -> code -> mean

A `Transform` sees one client's update at a time. `stack` builds the only order
that a run uses; pieces that do not commute, such as a clip and a code, are
tested in that order.
"""

from collections.abc import Callable
from typing import NamedTuple

from relief_jax.clients.device import Device, Update
from relief_jax.types import Array, PyTree


class Transform(NamedTuple):
  """Holds a pair of pure functions on one client's update.

  Attributes:
    init: params -> its state of one client, kept in the client store; ().
    update: (Update, state, Device, link key of the round) -> (Update, state).
  """

  init: Callable[[PyTree], PyTree]
  update: Callable[[Update, PyTree, Device, Array], tuple[Update, PyTree]]


def stateless(function: Callable[[Update, Device, Array], Update]) -> Transform:
  """Builds a transform that keeps nothing.

  Args:
    function: (Update, Device, link key) -> Update.
  """
  return Transform(
    lambda params: (),
    lambda update, state, device, key: (function(update, device, key), state),
  )


def chain(*parts: Transform) -> Transform:
  """Applies transforms one after another."""

  def init(params):
    return tuple(part.init(params) for part in parts)

  def update(found, states, device, key):
    after = []
    for part, state in zip(parts, states, strict=True):
      found, state = part.update(found, state, device, key)
      after.append(state)
    return found, tuple(after)

  return Transform(init, update)
