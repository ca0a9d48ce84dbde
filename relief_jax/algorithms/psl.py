"""Parallel split learning: one server model, device parts that stay apart.

    z_n = f(x_n; theta_n)            device: activations and labels go up
    L_n = loss(g(z_n; phi), y_n)     server, on the batches of all devices
    phi <- opt(phi, sum_n p_n dL_n/dphi)
    theta_n <- opt(theta_n, dL_n/dtheta_n)

in every local step. What comes down is the gradient of a device's own loss and
not of the weighted one. Device parts are never averaged and never travel:
every device tests its own in front of the server's part. With
`merge=True` they are averaged at the end of a round as in SplitFed, and there
is one model.

With `labels=stay` the split is U-shaped: what is behind the last split point
is on the device, too, activations come down and gradients go up there once
more, and labels stay.

With unequal splits a block is on some devices and on the server for the
others; without a merge its copies then go separate ways. The optimiser of both
sides starts afresh in every round.

Grade: published (parallel split learning, https://arxiv.org/abs/2302.14299
among others; U-shape: https://arxiv.org/abs/1812.00564). The choice of splits,
latency and memory are **ours** (budgets/cuts.py).
"""

import dataclasses

from relief_jax.algorithms import fedavg
from relief_jax.algorithms.parts import split_bill
from relief_jax.budgets import cuts
from relief_jax.errors import InputError
from relief_jax.keys import name, option, switch
from relief_jax.rounds import activation_codes, split, split_steps
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Lockstep, Method, Traits
from relief_jax.settings import Setting
from relief_jax.task import Task

LEDGER = cuts.Ledger(weights=False)
U_SHAPED = LEDGER._replace(act_down=1, grad_up=1, labels=False)


@dataclasses.dataclass(frozen=True)
class Options(split_bill.Options, activation_codes.Options):
  """Holds the options of parallel split learning."""

  labels: str = option(
    name('go', ('go', 'stay'), 'up with the activations, or on the device')
  )
  merge: bool = option(
    switch(False, "the devices' parts are averaged after every round")
  )


@Facts(options=Options, splits=True)
def psl(task: Task, setting: Setting) -> Method:
  """Builds parallel split learning.

  Args:
    task: the model, with split points.
    setting: the round, with `Options`.

  Raises:
    InputError: as `split_bill.bill`; a U-shaped split with codecs.
  """
  options = setting.options
  if options.labels == 'stay' and activation_codes.asked(options):
    raise InputError(
      'a codec of activations for psl with labels=stay',
      'labels that go up: at the end they would have to be coded once more',
      'set --config.psl.labels=go, or leave the codec out',
    )
  ledger = LEDGER if options.labels == 'go' else U_SHAPED
  found = split_bill.bill(
    task, setting, 'psl', ledger._replace(weights=options.merge)
  )
  method = together(task, setting, found, split_steps.pooled)
  return method if options.merge else split.apart(task, method)


def together(
  task: Task, setting: Setting, found: split_bill.Bill, step, in_turn=False
) -> Method:
  """Builds a method whose devices and server train in lockstep.

  Args:
    task: the model.
    setting: the round.
    found: its plan and price.
    step: of `Lockstep`.
    in_turn: likewise.
  """
  wire, loss = 'sends activations and gradients, and no weights', None
  if found.codes:
    loss = activation_codes.loss(found.codes, found.points, found.among)
  return fedavg.fedavg(task, setting)._replace(
    plan=lambda server, round: found.everybody(setting, round),
    check=found.check,
    lockstep=Lockstep(found.device, found.server, step, in_turn, loss=loss),
    traits=Traits(
      lockstep=True, wire='' if found.split.ledger.weights else wire
    ),
  )
