"""A trained model and what its predictions need, apart from its run."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from relief_jax import models, tree
from relief_jax.engine import ambient
from relief_jax.errors import InputError, unknown
from relief_jax.models.encoders import Spec
from relief_jax.rounds.records import Algorithm
from relief_jax.runs import evaluation, own_evaluation
from relief_jax.scoring import targets
from relief_jax.task import Task
from relief_jax.types import Array, PyTree
from relief_jax.world import Inputs, World

_BATCH = 256  # windows at a time: one compiled program for any number


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """Holds a trained model, and predicts from raw windows, images or texts.

  Attributes:
    method: that trained it.
    backbone: as `models.find`.
    spec: of the model.
    round: after which it is the model.
    classes: [C] names.
    params: P of numpy arrays; [N, *P] of a personal method.
    frozen: parameters that never train, likewise; {} if there are none.
    inputs: what windows are scaled by.
    fill: `input` or `skip`, what stands for a sensor that is not there; as it
      was tested in the run.
    ensemble: the scores are the mean over all exits.
    personal: every client has a model of its own.
  """

  method: str
  backbone: str
  spec: Spec
  round: int
  classes: tuple[str, ...]
  params: PyTree
  frozen: PyTree
  inputs: Inputs
  fill: str
  ensemble: bool = False
  personal: bool = False

  @property
  def modalities(self) -> tuple[str, ...]:
    """Names of the sensors."""
    return self.spec.modalities

  @functools.cached_property
  def task(self) -> Task:
    """The model's functions; with all exits where they answer together."""
    task = models.make(self.backbone, self.spec)
    if self.ensemble and task.exits:
      return task.exits.until(task.cuts, True)
    return task

  @ambient.pinned()
  def scores(
    self,
    x: Mapping[str, np.ndarray],
    sensors: Sequence[str] | None = None,
    client: int | None = None,
  ) -> np.ndarray:
    """Computes class scores (logits) of windows, [B, C] float32.

    [B, T, V] of texts, and what is predicted, [B, D], of a regression.

    Args:
      x: {modality: [B, time, channels]} in the data's own units, or of the
        shape that the model was trained on; a sensor that is not there may be
        left out.
      sensors: names of those that are there; None: all in `x`.
      client: whose model, of a personal method.

    Raises:
      InputError: sensors, shapes or a client that the model does not have.
    """
    there = list(x) if sensors is None else list(sensors)
    for name in (*there, *x):
      if name not in self.modalities:
        raise unknown('sensor', name, self.modalities)
    windows, count = self._scaled(x, there)
    mask = np.array([name in there for name in self.modalities])
    params = self._params_of(client)
    found = [
      self._compiled(
        params,
        self.frozen,
        {m: v[low : low + _BATCH] for m, v in windows.items()},
        mask,
      )
      for low in range(0, len(next(iter(windows.values()))), _BATCH)
    ]
    return np.concatenate([np.asarray(v) for v in found])[:count]

  def predict(
    self,
    x: Mapping[str, np.ndarray],
    sensors: Sequence[str] | None = None,
    client: int | None = None,
  ) -> np.ndarray:
    """Predicts the class of windows, [B] int numbers into `classes`.

    [B, T] next tokens of texts; [B, D] float32 of a regression, as `scores`.

    Args: as `scores`.

    Raises:
      InputError: as `scores`.
    """
    found = self.scores(x, sensors, client)
    return found if self.spec.targets == targets.NUMBERS else found.argmax(-1)

  @ambient.pinned()
  def routes(
    self, x: Mapping[str, np.ndarray], sensors: Sequence[str] | None = None
  ) -> np.ndarray:
    """Finds the experts that windows are sent to, [B, E] bool.

    Of a transformer a row for every token that is there, and of n mixtures one
    for each of them, [B * T * n, n * E], as `caching.of_routes` takes them.

    Args: as `scores`; sensors that are not there are skipped.

    Raises:
      InputError: as `scores`, or a model without experts.
    """
    task = self.task
    if task.experts is None:
      raise InputError(
        f'routes of the model {self.backbone}, which has no experts',
        'a mixture of experts',
        'train one with --config.model.fusion=experts, or a transformer with '
        '--config.model.experts.blocks=1',
      )
    there = list(x) if sensors is None else list(sensors)
    windows, count = self._scaled(x, there)
    mask = np.array([name in there for name in self.modalities])
    features = {
      name: tree.masked(
        mask[i],
        task.encode(self.params, self.frozen, i, windows[name], task.cuts),
      )
      for i, name in enumerate(self.modalities)
    }
    found = task.experts.route(self.params, features, mask)[:count]
    p = np.asarray(found).reshape(-1, *found.shape[-2:])
    used = np.asarray(task.experts.weigh(jnp.asarray(p)) > 0)[p.any((1, 2))]
    apart = (
      used[:, :, None] & np.eye(used.shape[1], dtype=bool)[None, ..., None]
    )
    return apart.reshape(-1, used.shape[1] * used.shape[2])

  def _params_of(self, client: int | None) -> PyTree:
    """Picks the parameters of a client, or the shared ones."""
    if not self.personal:
      if client is not None:
        raise InputError(
          f'client={client} where {self.method} trains one model for all',
          'no client',
          'leave it out',
        )
      return self.params
    clients = len(jax.tree.leaves(self.params)[0])
    if client is None or not 0 <= client < clients:
      raise InputError(
        f'client={client} where {self.method} keeps a model per client',
        f'a client from 0 to {clients - 1}',
        'name whose model is asked for: predict(x, client=0)',
      )
    return jax.tree.map(lambda v: v[client], self.params)

  def _scaled(self, x, there) -> tuple[dict[str, np.ndarray], int]:
    """Scales windows and pads them to whole batches; zeros where absent."""
    found: dict[str, np.ndarray] = {}
    if not there:
      raise InputError('no sensor', 'at least one', 'give its windows')
    for name in there:
      if name not in x:
        raise InputError(
          f'no windows of {name}, which is said to be there',
          'windows of every sensor in `sensors`',
          'give them, or leave the sensor out',
        )
      _, *shape = self.spec.example[name].shape
      raw = np.asarray(x[name])
      if list(raw.shape[1:]) != shape:
        raise InputError(
          f'{name} of shape {raw.shape}',
          f'({", ".join(map(str, ["windows", *shape]))})'
          + ('' if self.spec.inputs else ': time, then channels'),
          'cut the windows as those that the model was trained on',
        )
      if self.spec.text:
        found[name] = self._tokens(raw)
        continue
      raw = raw.astype(np.float32)
      if not np.isfinite(raw).all():
        raise InputError(
          f'numbers in {name} that are NaN or infinite',
          'finite numbers',
          'interpolate the gaps, or leave the sensor out of `sensors`',
        )
      found[name] = (raw - self.inputs.mean[name]) / self.inputs.std[name]
    counts = {len(v) for v in found.values()}
    if len(counts) > 1 or 0 in counts:
      raise InputError(
        f'{sorted(counts)} windows', 'the same number, not 0', 'align them'
      )
    count = counts.pop()
    size = -(-count // _BATCH) * _BATCH
    padded = {
      name: np.zeros((size, *one.shape[1:]), one.dtype)
      for name, one in self.spec.example.items()
    }
    for name, windows in found.items():
      padded[name][:count] = windows
    return padded, count

  def _tokens(self, raw: np.ndarray) -> np.ndarray:
    """Checks tokens of texts; of those that have a class below 0 is none."""
    tokens = self.spec.symbols
    least = 0 if self.spec.next_token else targets.PADDING
    if raw.dtype.kind not in 'iu' or raw.min() < least or raw.max() >= tokens:
      raise InputError(
        f'{raw.dtype} from {raw.min()} to {raw.max()}',
        f'tokens, ints from {least} to {tokens - 1}, '
        + ('the places in `classes`' if not least else '-1 for none'),
        'look every symbol up in the vocabulary of the data',
      )
    return raw.astype(np.int32)

  @functools.cached_property
  def _compiled(self):
    """Builds (params, frozen, x, mask) -> [B, C], compiled."""
    task, filled = self.task, self.fill == 'input'
    fill = None
    if filled:
      fill = {
        m: jnp.asarray(self.inputs.fill[m], one.dtype)
        for m, one in self.spec.example.items()
      }

    def scores(params, frozen, x: dict[str, Array], mask: Array) -> Array:
      seen = {
        name: task.encode(params, frozen, i, x[name], task.cuts)
        for i, name in enumerate(task.modalities)
      }
      absent = own_evaluation.encode_absent(task, params, frozen, x, fill, seen)
      found = evaluation.fuse_seen(
        task, params, frozen, seen, absent, mask, filled
      )
      axes = targets.axes(self.spec.targets)
      return found if found.ndim == axes else jnp.mean(found, 0)

    return jax.jit(scores)


def of_run(
  config: ml_collections.ConfigDict,
  world: World,
  algorithm: Algorithm,
  done: int,
  arrays: tuple[PyTree, PyTree],
) -> Model:
  """Takes the model of a run as it is now, to predict with or to keep.

  Args:
    config: of the run.
    world: of the run.
    algorithm: of the run.
    done: rounds behind it.
    arrays: (parameters, frozen parameters) on this process's devices.
  """
  params, frozen = jax.device_get(arrays)
  return Model(
    method=config.method,
    backbone=config.backbone,
    spec=world.spec._replace(cached=False, weights=''),
    round=done,
    classes=world.classes,
    params=params,
    frozen=frozen,
    inputs=world.inputs,
    # A model of one's own is tested with the sensors that are there.
    fill='skip' if algorithm.personal else world.fill,
    ensemble=algorithm.ensemble,
    personal=algorithm.personal,
  )
