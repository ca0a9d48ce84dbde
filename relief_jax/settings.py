"""Holds settings of a round other than the method's: static and hashable."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_collections
import optax

from relief_jax import optimizers
from relief_jax.budgets import memory
from relief_jax.compressors import Codec
from relief_jax.engine import placement
from relief_jax.engine.buckets import Bucket
from relief_jax.types import Array, Fleet

# Traced values of a round by name: client_lr, client_momentum, lr_decay,
# lr_floor, lr_every, lr_warmup, server_lr, ema, prox, dropout, deadline,
# deadline_end, rounds (R, for schedules over the run), wait, clip_norm,
# noise_multiplier, faulty [N] (updates/faults.py), listen [N] and erasure [N]
# (updates/rateless.py), optimizer.NAME, arguments of the local optimiser, and
# selection.NAME, of the rule that picks devices.
HParams = Mapping[str, Any]

# Structures that only follow from the names of hyperparameters.
ANY: HParams = defaultdict(lambda: 1.0)


class Faults(NamedTuple):
  """Describes the updates of faulty clients, see `hparams['faulty']`.

  Attributes:
    kind: `nan` (no numbers), `flip` (the negated update), `noise` (Gaussian,
      in place of the update), or '' for no faults.
    scale: norm of the last two, in norms of the update.
  """

  kind: str = ''
  scale: float = 1.0


class Guard(NamedTuple):
  """Describes the treatment of faulty updates in a round; static.

  Attributes:
    drop: updates that are not finite are left out; else they end the run.
    clip: to the norm `hparams['clip_norm']`.
    mean: `mean`, `median` or `trimmed` (aggregation/robust.py).
    trim: share of the values that is cut off on either side of `trimmed`.
    faults: to test all this with.
    noise: who adds Gaussian noise (updates/noise.py): `device`, `server`, or ''
      for nobody.
  """

  drop: bool = False
  clip: bool = False
  mean: str = 'mean'
  trim: float = 0.0
  faults: Faults = Faults()
  noise: str = ''

  @property
  def robust(self) -> bool:
    """Tells whether the mean needs every update by itself."""
    return self.mean != 'mean'


class Broadcast(NamedTuple):
  """Describes how the model is sent to devices (updates/rateless.py); static.

  Attributes:
    kind: `rateless` (once for all), `unicast` (one device after another), or ''
      for links without loss.
    protect: `none` (blocks by number), `order` (the most divergent first), or
      `symbols` (these have more repair, too).
    repair: symbols that are sent beyond those that suffice without a loss, over
      these; 0: as many as anybody listens to.
    symbol: bytes.
    effort: iterations of a decoder; 0: as many as it takes.
  """

  kind: str = ''
  protect: str = 'order'
  repair: float = 0.0
  symbol: int = 256
  effort: int = 0


class Setting(NamedTuple):
  """Describes the part of a round outside its algorithm; static and hashable.

  Values are not here: hyperparameters are arguments (`HParams`).

  Attributes:
    layout: of the clients.
    late: `lost` or `partial`, treatment of stragglers after hparams.wait
      (rounds/stragglers.py); '' where the server waits for all.
    buckets: of the whole population, which then takes part in every round
      with `fill='skip'`; () for none.
    clients: N.
    cohort: K, clients per round.
    steps: T, local steps (when `epochs` is 0).
    epochs: E, local epochs; replaces `steps` when positive.
    batch: B.
    weight: of a client in the mean, `uniform` or `samples`.
    fill: `input` or `skip`, what happens to absent modalities.
    dropout: modality dropout is on.
    schedule: the deadline rises from `deadline` to `deadline_end`.
    client_optimizer: local one, with the schedule of its rate.
    server_optimizer: `sgd`, `momentum`, `adam` or `yogi`.
    keep_client_state: the local optimiser's state stays on the device between
      rounds.
    idle_power: devices are charged for waiting.
    sit_out: devices that cannot hold their part sit out, and are no error.
    uplink_codec: of updates (updates/link.py).
    downlink_codec: of the broadcast.
    broadcast: of the model, where it may be lost.
    guard: against diverging and Byzantine clients (updates/faults.py,
      aggregation/robust.py).
    similarity: updates are compared in pairs (rounds/similarity.py).
    selection: who takes part, `random` or a rule (selection/).
    options: of the method, the record that its file declares; () without.
  """

  layout: placement.Layout = placement.Layout()
  buckets: tuple[Bucket, ...] = ()
  clients: int = 0
  cohort: int = 0
  steps: int = 5
  epochs: int = 0
  batch: int = 32
  weight: str = 'uniform'
  fill: str = 'skip'
  dropout: bool = False
  schedule: bool = False
  late: str = ''
  client_optimizer: optimizers.Optimizer = optimizers.Optimizer()
  server_optimizer: str = 'sgd'
  keep_client_state: bool = False
  idle_power: bool = False
  sit_out: bool = False
  uplink_codec: Codec = Codec()
  downlink_codec: Codec = Codec()
  broadcast: Broadcast = Broadcast()
  guard: Guard = Guard()
  similarity: bool = False
  selection: str = 'random'
  options: Any = ()

  def client_tx(
    self, hparams: HParams = ANY, round_index: Array | int = 0
  ) -> optax.GradientTransformation:
    """Builds the local optimiser.

    Args:
      hparams: traced hyperparameters; any give the same state.
      round_index: of the round.
    """
    return optimizers.build(
      self.client_optimizer, hparams, self.client_rate(hparams, round_index)
    )

  def client_rate(self, hparams: HParams, round_index: Array | int) -> Array:
    """Computes the local learning rate of a round, [].

    Args:
      hparams: traced hyperparameters.
      round_index: of the round.
    """
    return optimizers.rate(self.client_optimizer, hparams, round_index)

  @property
  def memory_step(self) -> memory.Step:
    """What the memory of a local step depends on beside the model."""
    return memory.Step(self.batch, optimizers.numbers_kept(self.client_tx()))

  def local_steps(self, fleet: Fleet) -> Array:
    """Computes the local steps of each device in a round, [K] int32."""
    if self.epochs:
      return self.epochs * -(-fleet.samples // self.batch)
    return jnp.full(fleet.samples.shape, self.steps)

  def samples(self, fleet: Fleet) -> Array:
    """Counts the training samples of each device in a round, [K] float32."""
    if self.epochs:
      return (self.epochs * fleet.samples).astype(jnp.float32)
    return jnp.full(fleet.samples.shape, float(self.steps * self.batch))

  def server_tx(self, hparams: HParams = ANY) -> optax.GradientTransformation:
    """Builds the server's optimiser, on the negated mean update.

    Args:
      hparams: traced hyperparameters; any give the same state.
    """
    lr = hparams['server_lr']
    return {
      'sgd': lambda: optax.sgd(lr),
      'momentum': lambda: optax.sgd(lr, momentum=0.9),
      'adam': lambda: optax.adam(lr, b1=0.9, b2=0.99, eps=1e-3),
      'yogi': lambda: optax.yogi(lr, b1=0.9, b2=0.99, eps=1e-3),
    }[self.server_optimizer]()


def make_broadcast(config: ml_collections.ConfigDict) -> Broadcast:
  """Builds the broadcast of a config.

  >>> from relief_jax import config
  >>> make_broadcast(config.default()) == Broadcast()
  True
  """
  given = config.broadcast
  if given.kind == 'off':
    return Broadcast()
  return Broadcast(
    given.kind, given.protect, given.repair, given.symbol, given.effort
  )


def make_guard(config: ml_collections.ConfigDict) -> Guard:
  """Builds the guard of a config.

  >>> from relief_jax import config
  >>> make_guard(config.default()) == Guard()
  True
  """
  faults, multiplier = Faults(), config.hparams.noise_multiplier
  if config.faults.share > 0:
    faults = Faults(config.faults.kind, config.faults.scale)
  return Guard(
    drop=config.nonfinite == 'drop',
    clip=config.hparams.clip_norm > 0,
    mean=config.mean,
    trim=config.trim if config.mean == 'trimmed' else 0.0,
    faults=faults,
    noise=config.privacy.noise if multiplier else '',
  )
