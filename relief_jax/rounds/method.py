"""Defines a method as five functions, and their arguments.

    plan -> client -> aggregate -> server, and init before the first round

`parallel.build` makes the compiled round of it. A method looks like its
equations: it takes FedAvg's functions and writes down where it differs.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from relief_jax.aggregation.mean import Aggregator, Mean
from relief_jax.budgets.memory import Limit
from relief_jax.clients.device import Device, Received, Update
from relief_jax.rounds.observe import Observer
from relief_jax.rounds.records import SubModels
from relief_jax.settings import HParams
from relief_jax.task import Plan
from relief_jax.types import Array, Fleet, PyTree
from relief_jax.updates.transform import Transform


class Server(NamedTuple):
  """Holds the server's state from round to round.

  Attributes:
    params: P, the global model.
    opt_state: of its optimiser.
    method_state: of the method.
  """

  params: PyTree
  opt_state: PyTree = ()
  method_state: PyTree = ()


class Round(NamedTuple):
  """Holds the server's view of a round and its participants.

  Attributes:
    key: of this round's plan; `batches.client_keys` makes the devices' of it.
    round_index: [] int32.
    place: [K] int32, places of the participants in the population.
    fleet: [K] participants.
    access: [K, G] bool, blocks of their modalities and the shared ones.
    active: [K] bool, False for padding and for devices that sit out.
    budget: [K] FLOPs per sample under this round's deadline.
    hparams: traced hyperparameters.
    clients: [K, ...] what the method keeps on the participants.
    population: the bank and the frozen base; () outside a round.
    windows: [K, W] int32, the participants' windows; () outside a round.
    everyone: [N] the whole fleet, participants or not; () outside a round.
    each: (function, shared, rows, work=None) -> (sums, records): maps a
      function (shared, row) -> (sums, record) over clients now, in the run's
      layout; as `placement.map_reduce`. None outside a round.
    plan: of the round, once it is made; a straggler or a client left out
      has trained nothing in it.
  """

  key: Array
  round_index: Array
  place: Array
  fleet: Fleet
  access: Array
  active: Array
  budget: Array
  hparams: HParams
  clients: PyTree = ()
  population: Any = ()
  windows: PyTree = ()
  everyone: Any = ()
  each: Any = None
  plan: Any = None

  @property
  def limit(self) -> Limit:
    """Bounds of what each participant can train, [K] of every field."""
    return Limit(self.budget, self.fleet.memory)


class Traits(NamedTuple):
  """Describes traits of a method that not every setting can be combined with.

  Attributes:
    submodels: devices train parts of blocks, which no code can carry.
    finds_weights: devices compute their weights themselves.
    sums: plain sums of `Update.sums` are used.
    projects: what is sent is not free to be scaled, such as ternary weights.
    personal: every client has a model of its own.
    silent: no server averages anything.
    ensemble: the model answers with the mean of the logits of all its exits.
    lockstep: the server trains a part of the model in every local step, so
      that no treatment of whole updates can hold.
    wire: the links' codes are the method's own, so none can be set; the text
      says what it sends.
    optimizers: server optimisers that it can work with; () for all.
  """

  submodels: bool = False
  finds_weights: bool = False
  sums: bool = False
  projects: bool = False
  personal: bool = False
  silent: bool = False
  ensemble: bool = False
  lockstep: bool = False
  wire: str = ''
  optimizers: tuple[str, ...] = ()


class Lockstep(NamedTuple):
  """Describes how devices and a server train one model, step by step.

  Attributes:
    device: [G] bool, static, blocks that some device may hold.
    server: [G] bool, static, blocks that the server may train.
    step: (split_steps.Place, server's Side, devices' Side [k, ...], rows [k],
      steps [k], each) -> (both sides, losses [k], what each device tells,
      [k, ...] of every leaf), one local step of all; what is told comes to the
      method's `server` as `Mean.rows`, [K, T, ...].
    in_turn: devices are served one after another, and the server's part moves
      in between; then `rows` are of all devices and `each` is None.
    merged: the devices' parts are averaged at the end of a round; else they
      stay where they are.
    loss: (split_steps.Place, Row) -> ((params, step) -> []), where it is not
      the model's own; for steps made of `split_steps.local_step`.
  """

  device: np.ndarray
  server: np.ndarray
  step: Callable[..., Any]
  in_turn: bool = False
  merged: bool = True
  loss: Callable[..., Callable[[PyTree, Any], Array]] | None = None


class Events(NamedTuple):
  """Describes a server that acts on updates as they arrive; all static.

  Attributes:
    buffer: K, updates of a server step; the rows of its record.
    weight: [K] float32 staleness -> [K] factors of the updates.
    merge: `updates`: each is scaled by its factor; `models`: likewise, of the
      model that a device sends against the server's present one; `weights`:
      the factors are weights in the mean, which they cancel in where all are
      equal.
    limit: largest staleness, an older update is lost; 0: none is.
    tiers: devices are cut into so many by their time; a tier starts together
      and is waited for, and K are its devices at most. 0: each by itself.
  """

  buffer: int
  weight: Callable[[Array], Array]
  merge: Literal['updates', 'models', 'weights'] = 'updates'
  limit: int = 0
  tiers: int = 0


class Method(NamedTuple):
  """Describes a federated method. All functions are pure.

  Attributes:
    plan: (Server, Round) -> Plan, of the whole cohort on the server: who runs,
      trains and counts.
    client: (Received, Device) -> Update, of one client; with `lockstep` it is
      not called, as no client trains alone.
    aggregate: the mean over clients.
    server: (Server, Mean, Round) -> (Server, what the method keeps on the
      participants [K, ...]).
    init: params -> `Server.method_state`.
    client_init: params -> what is kept on one client; () for nothing.
    send: Server -> Received.
    model: (Received, what is kept on one client) -> P, what a device runs
      before it trains.
    evaluate: (Server, what the method keeps on all clients [N, ...]) -> P to
      test, or [N, *P] of a personal method.
    base: (Server, `Population.frozen`) -> frozen parameters, where the server
      changes the base; None: it stays.
    report: Server after the round -> {name: array} of `RoundInfo.extra`.
    divergence: `Server.method_state` -> [G] tracked divergence, or None for
      this round's own.
    device_submodels: (params, rounds done, fleet [N], hparams) -> SubModels,
      what each device would run now, where it is not the server's model.
    check: (fleet, latest deadline) -> None, before the run and on the host;
      raises InputError where the fleet leaves parts of the model untrained.
    traits: what it cannot be combined with.
    transforms: of updates, its own, before those of the run.
    observers: of updates as they arrive, beside those of the run.
    lockstep: devices and server train together (rounds/split.py), or None.
    events: the server acts on arrivals (rounds/events.py), or None.
  """

  plan: Callable[[Server, Round], Plan]
  client: Callable[[Received, Device], Update]
  aggregate: Aggregator
  server: Callable[[Server, Mean, Round], tuple[Server, PyTree]]
  init: Callable[[PyTree], PyTree] = lambda params: ()
  client_init: Callable[[PyTree], PyTree] = lambda params: ()
  send: Callable[[Server], Received] = lambda server: Received(server.params)
  model: Callable[[Received, PyTree], PyTree] = lambda sent, kept: sent.params
  evaluate: Callable[[Server, PyTree], PyTree] = lambda server, clients: (
    server.params
  )
  base: Callable[[Server, PyTree], PyTree] | None = None
  report: Callable[[Server], dict[str, Array]] = lambda server: {}
  divergence: Callable[[PyTree], Array] | None = None
  device_submodels: Callable[..., SubModels] | None = None
  check: Callable[[Fleet, float], None] = lambda fleet, deadline: None
  traits: Traits = Traits()
  transforms: tuple[Transform, ...] = ()
  observers: tuple[Observer, ...] = ()
  lockstep: Lockstep | None = None
  events: Events | None = None
