"""How an algorithm differs from FedAvg, and what its functions may look at."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from relief_jax import placement
from relief_jax.buckets import Bucket
from relief_jax.compressors import Codec, Compressor
from relief_jax.guard import Guard
from relief_jax.types import (
  Array,
  Fleet,
  Output,
  Plan,
  Population,
  PyTree,
  Steps,
)


class Setting(NamedTuple):
  """Everything about a round that is not the algorithm; static but hparams.

  Attributes:
    hparams: traced values: client_lr, client_momentum, server_lr, ema, prox,
      dropout, deadline, deadline_end, rounds (R, for schedules over the run),
      clip_norm and faulty [N] (guard.py; where it uses them).
    layout: of the clients.
    late: `lost` or `partial`, what comes after the server's patience of
      hparams.wait (patience.py); '' where it waits for all.
    decays: the local rate falls by hparams.lr_decay a round, down to lr_floor.
    buckets: of the whole population, which then takes part in every round
      with `fill='skip'`; () for none.
    cohort: K, clients per round.
    steps: T, local steps (when `epochs` is 0).
    epochs: E, local epochs; replaces `steps` when positive.
    batch: B.
    weight: of a client in the mean, `uniform` or `samples`.
    fill: `input` or `skip`, what happens to absent modalities.
    dropout: modality dropout is on.
    schedule: the deadline rises from `deadline` to `deadline_end`.
    server_optimizer: `sgd`, `momentum`, `adam` or `yogi`.
    keep_client_state: local momentum stays on the device between rounds.
    idle_power: devices are charged for waiting.
    uplink_codec: of updates (links.py).
    downlink_codec: of the broadcast.
    guard: against clients that diverge or lie (guard.py, robust.py).
    cosines: updates are compared in pairs (cosines.py).
    options: options of the algorithm.
  """

  hparams: Mapping[str, Any]
  layout: placement.Layout = placement.Layout()
  buckets: tuple[Bucket, ...] = ()
  cohort: int = 0
  steps: int = 5
  epochs: int = 0
  batch: int = 32
  weight: str = 'uniform'
  fill: str = 'skip'
  dropout: bool = False
  schedule: bool = False
  late: str = ''
  decays: bool = False
  server_optimizer: str = 'sgd'
  keep_client_state: bool = False
  idle_power: bool = False
  uplink_codec: Codec = Codec()
  downlink_codec: Codec = Codec()
  guard: Guard = Guard()
  cosines: bool = False
  options: Mapping[str, Any] = {}

  def client_tx(self, number: Array | int = 0) -> optax.GradientTransformation:
    """SGD with momentum, the local optimiser.

    Args:
      number: of the round.
    """
    rate = self.hparams['client_lr']
    if self.decays:
      rate = rate * self.hparams['lr_decay'] ** number
      rate = jnp.maximum(rate, self.hparams['lr_floor'])
    return optax.chain(
      optax.trace(decay=self.hparams['client_momentum']),
      optax.scale_by_learning_rate(rate),
    )

  def local_steps(self, fleet: Fleet) -> Array:
    """Local steps that each device takes in a round, [K] int32."""
    if self.epochs:
      return self.epochs * -(-fleet.samples // self.batch)
    return jnp.full(fleet.samples.shape, self.steps)

  def samples(self, fleet: Fleet) -> Array:
    """Training samples that each device processes in a round, [K] float32."""
    if self.epochs:
      return (self.epochs * fleet.samples).astype(jnp.float32)
    return jnp.full(fleet.samples.shape, float(self.steps * self.batch))

  def server_tx(self) -> optax.GradientTransformation:
    """The server's optimiser, on the negated mean update."""
    lr = self.hparams['server_lr']
    return {
      'sgd': lambda: optax.sgd(lr),
      'momentum': lambda: optax.sgd(lr, momentum=0.9),
      'adam': lambda: optax.adam(lr, b1=0.9, b2=0.99, eps=1e-3),
      'yogi': lambda: optax.yogi(lr, b1=0.9, b2=0.99, eps=1e-3),
    }[self.server_optimizer]()


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
    key: of the round and the device, `cohort.client_keys(Context.key, fleet)`:
      the server can draw the same numbers in its plan. The keys of an
      objective's steps are folded from it by `local_training.STEPS`.
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
    loss: (Task, criterion of `local_training.client_loss`) -> ((params, step)
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
