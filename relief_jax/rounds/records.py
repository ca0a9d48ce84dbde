"""Records of rounds: what a round shows, and what an algorithm is."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from relief_jax.task import Task
from relief_jax.types import Array, Fleet, PyTree


class Online(NamedTuple):
  """Holds a round's record of an online world beside the rest.

  Attributes:
    transfer: [K, 2] float32, seconds of sending and receiving.
    late: [K] bool, the server did not wait for the end; None: it waits.
    arrived_samples: [K] int32, windows that arrived and were tested before
      training on them; None without a stream.
    correct: [K] int32, those of them that the model classified correctly.
  """

  transfer: Array
  late: Array | None = None
  arrived_samples: Array | None = None
  correct: Array | None = None


class RoundInfo(NamedTuple):
  """Holds the record of a round.

  Attributes:
    client: [K] int32, ids of the clients that took part.
    loss: [K] float32, mean training loss.
    trained: [K, G] bool.
    upload: [K] float32 bytes.
    download: [K] float32 bytes.
    seconds: [K] float32, compute and transfers.
    joules: [K] float32.
    divergence: [G] float32, tracked divergence (NaN where not tracked).
    online: what only an online world shows, None in a static one.
    extra: what observers saw, by name, only what is asked for:
      `weight_factor` [K, G], weights that devices computed themselves;
      `noisy_weight` [K, G], in the mean, where devices add noise;
      `dropped` [K] bool, whose update was not finite and is left out;
      `similarity` [blocks, K, K], cosines of the updates of every two devices;
      `memory` [K] bytes of training, in a fleet with bounds;
      `airtime` [] seconds, `stale` [G] and `asked` [G], devices that did not
      decode a block and that asked for it, `downlink` [K] bit/s, where the
      broadcast may be lost;
      `merge_error` [] of the products of adapters, `merge_dense` [] share of
      layers whose merge travels as a dense matrix (aggregation/lora.py);
      `server_joules` [] of a server that trains a part of the model, and
      `steps` [K, 7] with it, `task.STEP`; `elapsed` [] seconds and `staleness`
      [K] int32, -1 without an update that counts, where the server acts on
      arrivals.
  """

  client: Array
  loss: Array
  trained: Array
  upload: Array
  download: Array
  seconds: Array
  joules: Array
  divergence: Array
  online: Online | None = None
  extra: Mapping[str, Array] = {}

  @property
  def elapsed(self) -> Array:
    """Simulated seconds of the round, [...] by the axes in front of K."""
    return self.extra.get('elapsed', self.seconds.max(-1))


class SubModels(NamedTuple):
  """Holds the sub-models that devices run after a round.

  Attributes:
    model_index: [N] int32, 0 for the server's whole model, else 1 + a place in
      `models`.
    models: a task and its parameters each; several devices may share one.
  """

  model_index: Array
  models: tuple[tuple[Task, PyTree], ...]


class Algorithm(NamedTuple):
  """Describes a federated system: two pure functions and its model's place.

  Attributes:
    init: (key, params) -> state.
    step: (key, state, population, hparams) -> (state, RoundInfo).
    params: state -> P, or [N, *P] for a `personal` algorithm.
    personal: every client has a model of its own.
    frozen: (state, `Population.frozen`) -> parameters that never train on
      devices, where the server changes them; None: they stay.
    device_submodels: (params, rounds done, fleet [N], hparams) -> SubModels,
      what each device would run now, given what it was last sent and trained;
      None where every device holds all that its sensors can use.
    ensemble: the model answers with the mean of the logits of all its exits;
      then every exit is tested alone, too.
    check: (fleet, latest deadline) -> None, before the run and on the host;
      raises InputError where the fleet leaves parts of the model untrained.
  """

  init: Callable[..., PyTree]
  step: Callable[..., tuple[PyTree, RoundInfo]]
  params: Callable[[PyTree], PyTree]
  personal: bool = False
  frozen: Callable[[PyTree, PyTree], PyTree] | None = None
  device_submodels: Callable[..., SubModels] | None = None
  ensemble: bool = False
  check: Callable[[Fleet, float], None] = lambda fleet, deadline: None
