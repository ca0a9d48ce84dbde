"""Computes the time, energy and bytes of a run without training anything.

Who takes part, what the plan says, links, patience and energy are array
arithmetic; a model's numbers enter it only where a method looks at them to
decide. So the compiled round is the method's own, with all that costs do not
need cut out: for methods that decide without looking, seconds, joules and bytes
are those of the training run of the same seed, to the bit; to the last digit
where processors and links vary from round to round (`config.online.pace`),
since XLA fuses their exponentials differently.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.interpreters import partial_eval

from relief_jax import algorithms, models, plugins, selection, world
from relief_jax.config import registries, validation
from relief_jax.engine import ambient, placement
from relief_jax.errors import InputError
from relief_jax.rounds.records import Algorithm
from relief_jax.runs import program, start
from relief_jax.types import Array, Population, PyTree

_ROWS = 4_000_000  # participants in a call of the program


class Costs(NamedTuple):
  """Holds the simulated costs of a run.

  Attributes:
    rounds: name -> [R] float64: `seconds`, the slowest device's or of a
      server's step, `joules`, `up_bytes` and `down_bytes`, sums over devices,
      `working`, devices that trained, and `late`, those that the server did
      not wait for.
    devices: name -> [N] float64, sums over rounds: `rounds` in which it worked,
      `seconds` it was busy, `joules`, `up_bytes`, `down_bytes`.
    tier: [N] int, tier of each device.
    tiers: names of the tiers.
    deadline: (first, last round's) in seconds; infinite without one.
    dataset: that the devices hold.
    wall_seconds: real ones, of `setup`, `compile` and `run`.
  """

  rounds: dict[str, np.ndarray]
  devices: dict[str, np.ndarray]
  tier: np.ndarray
  tiers: Sequence[str]
  deadline: tuple[float, float]
  dataset: str
  wall_seconds: dict[str, float]


class _Costs(NamedTuple):
  """Holds the record of a round that costs need, [K] each, `elapsed` []."""

  client: Array
  elapsed: Array
  seconds: Array
  joules: Array
  up_bytes: Array
  down_bytes: Array
  working: Array
  late: Array


@ambient.pinned()
def simulate(
  config: ml_collections.ConfigDict, data_dir: str | None = None
) -> Costs:
  """Computes the costs of all rounds of a config.

  >>> from relief_jax import config
  >>> c = config.default()
  >>> c.method, c.dataset, c.clients, c.rounds = 'fedavg', 'synthetic', 8, 1000
  >>> simulate(c).rounds['seconds'].shape
  (1000,)

  Args:
    config: of a run; its layout, devices and evaluations say nothing here.
    data_dir: folder of the data sets, None to search.

  Raises:
    InputError: bad config, data or fleet, or a method whose choices depend on
      what was trained.
  """
  clock = [time.perf_counter()]
  config = config.copy_and_resolve_references()
  config.layout, config.devices = 'one', 1
  validation.validate(config)
  registries.settle(config)
  if selection.READS[config.selection.rule].trained:
    raise InputError(
      f'config.selection.rule={config.selection.rule}, which looks at losses: '
      'who takes part, and so what it costs, is not known without training',
      'random or round_robin',
      'set --config.selection.rule=random, or run it with training',
    )
  layout = placement.parse_layout('one', 1)
  found = world.build(config, data_dir, layout)
  with config.unlocked():
    config.fill = found.fill
  bounded = found.population.fleet.memory is not None
  task = models.make(config.backbone, found.spec, bounded)
  setting = program.setting(config, found, layout)
  algorithm = algorithms.build(config.method, task, setting)
  algorithm.check(
    found.population.fleet, max(found.deadline, found.deadline_end)
  )
  clock.append(time.perf_counter())
  params_key, rounds_key = program.keys(config.seed)

  def begin(key):
    return algorithm.init(key, task.init(key))

  hparams = program.hparams(config, found)
  population = start.place_population(found.population, layout)
  shapes = jax.eval_shape(begin, params_key)
  needed = _needed(
    algorithm, rounds_key, shapes, population, hparams, config.method
  )
  state = jax.jit(lambda key: _pick(begin(key), needed))(params_key)
  each = min(config.rounds, max(1, _ROWS // setting.cohort))
  run = jax.jit(_rounds(algorithm, shapes, needed, each)).lower(
    state, population, rounds_key, jnp.int32(0), hparams
  )
  compiled = run.compile()
  clock.append(time.perf_counter())
  rounds, devices = _totals(
    lambda state, first: compiled(
      state, population, rounds_key, jnp.int32(first), hparams
    ),
    state,
    config.rounds,
    each,
    config.clients,
  )
  clock.append(time.perf_counter())
  names = ('setup', 'compile', 'run')
  return Costs(
    rounds=rounds,
    devices=devices,
    tier=np.asarray(found.population.fleet.tier),
    tiers=found.tiers,
    deadline=(found.deadline, found.deadline_end),
    dataset=found.title,
    wall_seconds=dict(zip(names, np.diff(clock).tolist(), strict=True)),
  )


def _costs_of(info) -> _Costs:
  """Takes what costs need out of a round's record."""
  working = info.trained.any(-1)
  late = jnp.zeros_like(working)
  if info.online is not None and info.online.late is not None:
    late = info.online.late
  return _Costs(
    client=info.client,
    elapsed=info.elapsed,
    seconds=info.seconds,
    joules=info.joules,
    up_bytes=info.upload,
    down_bytes=info.download,
    working=working,
    late=late,
  )


def _needed(
  algorithm: Algorithm,
  key: Array,
  state: PyTree,
  population: Population,
  hparams: PyTree,
  method: str,
) -> tuple[bool, ...]:
  """Marks the leaves of the state that the costs of later rounds depend on.

  Raises:
    InputError: they depend on the training windows.
  """

  def step(key, state, hparams, population):
    state, info = algorithm.step(key, state, population, hparams)
    return state, _costs_of(info)

  args = key, state, hparams, population
  traced = jax.make_jaxpr(step)(*args).jaxpr
  count = len(jax.tree.leaves(state))
  first = len(jax.tree.leaves(key))
  after = len(traced.outvars) - count
  used = [False] * count
  while True:
    _, inputs = partial_eval.dce_jaxpr(traced, [*used, *[True] * after])
    now = [
      a or b for a, b in zip(used, inputs[first : first + count], strict=True)
    ]
    if now == used:
      break
    used = now
  bank = jax.tree.leaves(
    jax.tree.map(lambda _: False, population).replace(
      bank=jax.tree.map(lambda _: True, population.bank)
    )
  )
  if any(a and b for a, b in zip(inputs[-len(bank) :], bank, strict=True)):
    raise InputError(
      f'method {plugins.short(method)!r}, which decides by what was trained: '
      'who does what, and so what it costs, is not known without training',
      'a method that plans without looking at the model, such as fedavg, '
      'cohort_mean, fedpmt or heterofl',
      'run it with training, on fewer devices (--config.clients_per_round)',
    )
  return tuple(used)


def _pick(state: PyTree, needed: Sequence[bool]) -> list[Array]:
  leaves = jax.tree.leaves(state)
  return [v for v, use in zip(leaves, needed, strict=True) if use]


def _rounds(
  algorithm: Algorithm, shapes: PyTree, needed: Sequence[bool], count: int
) -> Callable:
  """Builds `count` rounds: (state, population, key, first, hparams).

  What is not needed stands as zeros there, so that XLA cuts out all that is
  computed from it.
  """
  every, structure = jax.tree.flatten(shapes)

  def rounds(state, population, key, first, hparams):
    def step(state, index):
      known = iter(state)
      leaves = [
        next(known) if use else jnp.zeros(v.shape, v.dtype)
        for v, use in zip(every, needed, strict=True)
      ]
      own = jax.random.fold_in(key, index)
      whole = jax.tree.unflatten(structure, leaves)
      whole, info = algorithm.step(own, whole, population, hparams)
      return _pick(whole, needed), _costs_of(info)

    return jax.lax.scan(step, state, first + jnp.arange(count))

  return rounds


def _totals(
  call: Callable[[Any, int], tuple[Any, _Costs]],
  state: Any,
  count: int,
  each: int,
  clients: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Runs all rounds and adds them up in float64, as a training run does."""
  rounds: dict[str, list[np.ndarray]] = {}
  devices: dict[str, np.ndarray] = {}
  for first in range(0, count, each):
    state, found = call(state, first)
    found = jax.tree.map(lambda v, n=count - first: np.asarray(v)[:n], found)
    who = np.maximum(found.client, 0).ravel()
    for name, values in found._asdict().items():
      if name == 'client':
        continue
      exact = values.astype(np.float64)
      if name == 'elapsed':
        rounds.setdefault('seconds', []).append(exact)
        continue
      if name != 'seconds':
        rounds.setdefault(name, []).append(exact.sum(1))
      if name != 'late':
        mine = np.bincount(who, exact.ravel(), clients)
        key = 'rounds' if name == 'working' else name
        devices[key] = devices.get(key, 0) + mine
  return {k: np.concatenate(v) for k, v in rounds.items()}, devices
