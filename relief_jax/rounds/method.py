"""How an algorithm differs from FedAvg, and what its functions may look at."""

from collections.abc import Callable
from typing import NamedTuple

from relief_jax.compressors import Compressor
from relief_jax.types import (
  Array,
  Fleet,
  Output,
  Plan,
  Population,
  PyTree,
  Steps,
)


class Context(NamedTuple):
  """What a plan may look at.

  Attributes:
    key: of this round's plan.
    round: [] int32.
    place: [K] int32, places of the participants in the population.
    fleet: [K] participants.
    access: [K, G] bool, groups of their modalities and the shared ones.
    active: [K] bool, False for padding and for devices that sit out.
    budget: [K] FLOPs per sample under this round's deadline.
    params: P, the server's model; () where every client has its own.
    seen: of the recipe's `probe`.
  """

  key: Array
  round: Array
  place: Array
  fleet: Fleet
  access: Array
  active: Array
  budget: Array
  params: PyTree = ()
  seen: PyTree = ()


class Client(NamedTuple):
  """What a device knows when it takes its part of the model.

  Attributes:
    key: of the round and the device, `batches.client_keys(Context.key, fleet)`:
      the server can draw the same numbers in its plan. The keys of an
      objective's steps are folded from it by `device.STEPS`.
    fleet: of this client.
    y: [W] int32, classes of its windows; real ones are `fleet.samples`.
    piece: its row of `Plan.piece`.
  """

  key: Array
  fleet: Fleet
  y: Array
  piece: PyTree


class Learner(NamedTuple):
  """What a device's objective and its own weight may look at.

  Attributes:
    client: the device.
    sent: what came beside the model, of `Recipe.send`.
    forward: (params, step, alter=None, mend=None) -> Output, the last two as
      fields of `types.Batch`.
    y: step -> [B] int32, its classes.
    loss: (Task, criterion of `device.client_loss`) -> ((params, step)
      -> []), the plain loss of a sub-model.
    average: (step -> [B, ...]) -> [...], mean over all windows of the device.
    total: (step -> pytree) -> pytree, sum over all its windows; `step.weight`
      is 0 for those that only fill up a batch.
    branch: of `tree.choose`.
  """

  client: Client
  sent: PyTree
  forward: Callable[..., Output]
  y: Callable[[Steps], Array]
  loss: Callable[..., Callable[..., Array]]
  average: Callable[[Callable[[Steps], Array]], Array]
  total: Callable[[Callable[[Steps], PyTree]], PyTree]
  branch: bool


class Part(NamedTuple):
  """The elements of the model that one device holds.

  Attributes:
    held: P bool; only these move, and the mean of an element is over those
      who hold it.
    view: P -> P, the parameters that the forward pass sees.
  """

  held: PyTree
  view: Callable[[PyTree], PyTree]


class Merge(NamedTuple):
  """What the server knows after a round.

  Attributes:
    mean: P, the masked mean update over everybody counted.
    touched: prefix tree of P, bool: somebody trained it.
    weight: [G] sum of the weights of those who count and trained, T_g.
    trainers: [G] their number |T_g|.
    spread: [G] weighted variance of their updates around *their* mean, summed
      over the group's numbers.
    mean_sq: [G] squared norm of their mean.
    extra: sums of the recipe's `measure`.
    seen: [K, ...] of every leaf, what the recipe's `observe` saw on each
      device, zeros where it did not train.
    told: sums of the recipe's `tell`.
    own: [K, ...] of every leaf, what it keeps apart.
    active: [] number of participants K.
  """

  mean: PyTree
  touched: PyTree
  weight: Array
  trainers: Array
  spread: Array
  mean_sq: Array
  extra: PyTree
  active: Array
  seen: PyTree = ()
  told: PyTree = ()
  own: PyTree = ()


class Recipe(NamedTuple):
  """How an algorithm differs from FedAvg. All functions are pure.

  Attributes:
    plan: (memory, context) -> Plan.
    penalty: (params, anchor) -> [], added to the local loss.
    compressor: of updates; the setting's codes what is left of them.
    measure: (weights [G] of the plan, delta) -> pytree, summed over clients.
    observe: (gradients P, updates P) -> pytree, of every local step; summed
      over a device's steps and kept apart by device, so let it be small.
    adjust: merge -> mean update P, before the server's optimiser.
    remember: (memory, merge, plan, context) -> memory.
    memory: () -> initial memory.
    report: memory -> [G] tracked divergence, or None for this round's own.
    part: (params, Client) -> Part, where devices hold elements and not whole
      groups; made inside the client map, so that no mask is kept per client.
    dilute: the mean of an element is over all that count for its group, also
      those who do not hold it.
    send: memory -> pytree that every device is sent beside the model; what it
      costs is the plan's to charge.
    objective: learner -> ((params, step) -> []), the local loss in place of
      cross-entropy. Its steps have keys.
    weigh: (params after local training, learner) -> [G], factors of the
      device's weight in the mean. Who trains nothing finds none and does not
      count, not even to dilute.
    tell: (params as received, learner) -> (summed, own), what a device that
      trains finds on its windows before it does, for the server: pytrees that
      are summed over devices and kept apart by device.
    view: P -> P, the parameters that the forward pass sees, where that is the
      same for all and elements are not held apart (`part`).
    finish: P -> P, what a device makes of its trained parameters before it
      sends the groups that it trained.
    settle: P -> P, what the server makes of the groups that somebody trained.
    probe: (context, population, windows [K, W]) -> [K, ...] of every leaf, what
      participants measure on their own data before the plan.
  """

  plan: Callable[[PyTree, Context], Plan]
  penalty: Callable[..., Array] | None = None
  compressor: Compressor | None = None
  measure: Callable[..., PyTree] = lambda weights, delta: ()
  observe: Callable[[PyTree, PyTree], PyTree] | None = None
  adjust: Callable[[Merge], PyTree] = lambda merge: merge.mean
  remember: Callable[..., PyTree] = lambda memory, merge, plan, context: memory
  memory: Callable[[], PyTree] = lambda: ()
  report: Callable[[PyTree], Array] | None = None
  part: Callable[[PyTree, Client], Part] | None = None
  dilute: bool = False
  send: Callable[[PyTree], PyTree] | None = None
  objective: Callable[[Learner], Callable[..., Array]] | None = None
  weigh: Callable[[PyTree, Learner], Array] | None = None
  tell: Callable[[PyTree, Learner], tuple[PyTree, PyTree]] | None = None
  view: Callable[[PyTree], PyTree] | None = None
  finish: Callable[[PyTree], PyTree] | None = None
  settle: Callable[[PyTree], PyTree] | None = None
  probe: Callable[[Context, Population, Array], PyTree] | None = None
