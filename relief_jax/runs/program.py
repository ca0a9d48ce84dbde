"""Compiles rounds and evaluation, once for all runs of the same shapes."""

import time
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.interpreters import partial_eval
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from relief_jax import (
  algorithms,
  models,
  optimizers,
  plugins,
  selection,
  settings,
  tree,
)
from relief_jax.clients import sensor_faults
from relief_jax.compressors import Codec
from relief_jax.engine import ambient, buckets, debug, placement
from relief_jax.models.encoders import Spec
from relief_jax.optimizers import reading
from relief_jax.rounds.records import Algorithm
from relief_jax.runs import evaluation
from relief_jax.settings import HParams, Setting
from relief_jax.task import Task
from relief_jax.types import PyTree
from relief_jax.updates import faults, rateless
from relief_jax.world import World

_PARAMS, _ROUNDS = range(2)
_STAGES = ('trace', 'lower', 'compile')


class Call(NamedTuple):
  """Describes the static part of a program beside the setting.

  Attributes:
    method: as `algorithms.find`.
    backbone: as `models.find`.
    spec: of the model.
    rounds: in one call.
    even: the run's rounds are a multiple of that, those that are done too, so
      that no call has rounds to skip.
    scope: of the evaluation.
  """

  method: str
  backbone: str
  spec: Spec
  rounds: int
  even: bool
  scope: evaluation.Scope


class Program(NamedTuple):
  """Holds compiled functions.

  Attributes:
    rounds: (state, population, key, first round, all rounds, hparams) ->
      (state, infos [rounds, ...]); the state is donated.
    evaluate: (params, *arguments of `Simulation.test_arguments`) ->
      `evaluation.Counts`, on one device.
    seconds: spent on tracing, lowering and compiling them.
    memory: bytes that XLA reserves on a device for the larger of the two,
      beside its arguments.
  """

  rounds: Callable[..., tuple[PyTree, Any]]
  evaluate: Callable[..., evaluation.Counts]
  seconds: dict[str, float]
  memory: int


def setting(
  config: ml_collections.ConfigDict, world: World, layout: placement.Layout
) -> Setting:
  """Reads the setting of a round from a config.

  Args:
    config: of the run.
    world: that it runs in.
    layout: of the clients.
  """
  return Setting(
    layout=layout,
    buckets=_buckets(config, world, layout),
    clients=config.clients,
    cohort=config.clients_per_round or config.clients,
    steps=config.local_steps,
    epochs=config.local_epochs,
    batch=config.batch,
    weight=config.weight,
    fill=world.fill,
    dropout=config.modality_dropout > 0,
    schedule=world.deadline != world.deadline_end,
    late=config.online.pace.late if config.online.pace.wait else '',
    client_optimizer=reading.read(config),
    server_optimizer=config.server_optimizer,
    keep_client_state=config.keep_client_state,
    idle_power=config.idle_power,
    sit_out=config.over_budget == 'sit_out',
    uplink_codec=Codec(**config.uplink_codec.to_dict()),
    downlink_codec=Codec(**config.downlink_codec.to_dict()),
    broadcast=settings.make_broadcast(config),
    guard=settings.make_guard(config),
    similarity=config.update_similarity > 0,
    selection=config.selection.rule,
    options=algorithms.facts(config.method).make(
      config.get(plugins.short(config.method))
    ),
  )


def hparams(config: ml_collections.ConfigDict, world: World) -> HParams:
  """Gives the values of a config that are arguments of its program.

  Args:
    config: of the run.
    world: that it runs in.
  """
  values = {k: float(v) for k, v in config.hparams.items()}
  values |= {
    'dropout': config.modality_dropout,
    'deadline': world.deadline,
    'deadline_end': world.deadline_end,
    'rounds': config.rounds,
    'wait': config.online.pace.wait,
    **selection.values(config.selection),
  }
  return {
    **{k: jnp.float32(v) for k, v in values.items()},
    **{k: jnp.float32(v) for k, v in reading.values(config).items()},
    **faults.draw(config, world.population.fleet),
    **rateless.draw(config, world.population.fleet),
  }


def _buckets(config, world, layout) -> tuple[buckets.Bucket, ...]:
  """Builds the buckets that a config asks for, () where they are no use."""
  everybody = config.clients_per_round in (0, config.clients)
  use = everybody and not layout.branch and world.fill == 'skip'
  if config.buckets == 1 or not use:
    return ()
  together = layout.devices * max(layout.block, 1)
  found = buckets.bucket(
    np.asarray(world.population.fleet.owned),
    models.make(config.backbone, world.spec),
    config.buckets,
    together,
  )
  return found if len(found) > 1 else ()


_programs: dict[Hashable, Program] = {}


def get(
  task: Task,
  algorithm: Algorithm,
  setting: Setting,
  call: Call,
  args: tuple,
  test: tuple,
) -> tuple[Program, bool]:
  """Gets the program, from memory where an equal one was compiled before.

  Values (seed, hyperparameters, data, budgets) are arguments: a sweep over
  them compiles nothing.

  Args:
    task: the model.
    algorithm: of the task and the setting.
    setting: of the round.
    call: what else is static.
    args: of `Program.rounds`, for their shapes and places.
    test: arguments of `Program.evaluate` after the parameters, likewise.

  Returns:
    The program, and whether it had to be compiled.
  """
  name = identity(setting, call, args, test)
  fresh = name not in _programs
  if fresh:
    _programs[name] = _compile(task, algorithm, setting, call, args, test)
  return _programs[name], fresh


def known(setting: Setting, call: Call, args: tuple, test: tuple) -> bool:
  """Tells whether `get` has nothing to compile.

  Args: as `get`.
  """
  return identity(setting, call, args, test) in _programs


def identity(
  setting: Setting, call: Call, args: tuple, test: tuple
) -> Hashable:
  """Gives a key that is equal for all runs of the same program.

  Args: as `get`, which tells more of them.
  """
  leaves, structure = jax.tree.flatten((args, test))
  shapes = tuple((v.shape, str(v.dtype)) for v in leaves)
  optimizer = optimizers.find(setting.client_optimizer.name)
  return call, built_by(call), optimizer, setting, structure, shapes


def built_by(call: Call) -> Hashable:
  """Gives the functions that make a run's method and model.

  A name may stand for another function later in a process.
  """
  return algorithms.find(call.method), models.find(call.backbone)


def clear() -> None:
  """Forgets all programs (long sweeps over unlike shapes)."""
  _programs.clear()


def runner(algorithm: Algorithm, call: Call):
  """Builds the function that `Program.rounds` compiles, see there.

  Args:
    algorithm: whose rounds it runs.
    call: what else is static.
  """

  def rounds(state, population, key, first, total, hparams):
    @tree.traced_once
    def step(state, round_index):
      own = jax.random.fold_in(key, round_index)
      return algorithm.step(own, state, population, hparams)

    def guarded(state, round_index):
      def skip(state, round_index):
        return state, tree.zeros_like_output(step, state, round_index)[1]

      return jax.lax.cond(round_index < stop, step, skip, state, round_index)

    # What goes on from between two calls first comes back into step.
    stop = jnp.minimum((first // call.rounds + 1) * call.rounds, total)
    return jax.lax.scan(
      step if call.even else guarded, state, first + jnp.arange(call.rounds)
    )

  return rounds


def _compile(task, algorithm, setting, call, args, test) -> Program:
  rounds = runner(algorithm, call)
  evaluate = evaluator(task, algorithm, call.scope)
  places, everywhere = None, None
  if setting.layout.mesh:
    places = jax.tree.map(lambda v: v.sharding, args)
    everywhere = NamedSharding(setting.layout.mesh, P())
  jitted = jax.jit(
    rounds,
    donate_argnums=0,
    in_shardings=places,
    out_shardings=everywhere,
  )
  seconds: dict[str, float] = {}
  state = args[0]
  params = placement.local(algorithm.params(state))
  if setting.layout.debug:
    run = debug.eager(rounds)
  else:
    run = build(jitted, args, seconds)
  test_run = build(jax.jit(evaluate), (params, *test), seconds)
  memory = reserved(test_run)
  if not setting.layout.debug:
    memory = max(memory, reserved(run))
  return Program(run, test_run, seconds, memory)


def evaluator(task: Task, algorithm: Algorithm, scope: evaluation.Scope):
  """Builds the function that `Program.evaluate` compiles, see there.

  Args:
    task: the model.
    algorithm: whose models are tested.
    scope: of the evaluation.
  """

  def test(params, done, fleet, frozen, hparams, tests):
    if fleet.shift is not None:
      last = jnp.maximum(done - 1, 0)
      fleet = fleet.replace(shift=sensor_faults.at_round(fleet.shift, last))
    if algorithm.personal:
      return evaluation.evaluate_personal(
        task, params, frozen, tests, fleet, scope
      )
    model, submodels = task, None
    if algorithm.ensemble and task.exits:
      model = task.exits.until(task.cuts, True)
    if algorithm.device_submodels:
      submodels = algorithm.device_submodels(params, done, fleet, hparams)
    return evaluation.evaluate(
      model, params, frozen, tests, fleet, scope, submodels
    )

  def evaluate(params, *rest):
    broken = jax.tree.map(lambda v: (~jnp.isfinite(v)).any(), params)
    return test(params, *rest)._replace(
      nonfinite=tree.group_sum(task.groups, broken, task.num_blocks)
    )

  return evaluate


def keys(seed) -> tuple[jax.Array, jax.Array]:
  """Derives the keys of a seed's initial parameters and of its rounds."""
  key = ambient.key(seed)
  return jax.random.fold_in(key, _PARAMS), jax.random.fold_in(key, _ROUNDS)


def build(jitted, args: tuple, seconds: dict[str, float]):
  """Compiles a function, and adds up the time of each stage.

  Args:
    jitted: from `jax.jit`.
    args: arrays or their shapes.
    seconds: of each stage, `trace`, `lower` and `compile`; is added to.
  """
  clock = [time.perf_counter()]
  traced = jitted.trace(*args)
  clock.append(time.perf_counter())
  lowered = traced.lower()
  clock.append(time.perf_counter())
  compiled = lowered.compile()
  clock.append(time.perf_counter())
  for stage, taken in zip(_STAGES, np.diff(clock).tolist(), strict=True):
    seconds[stage] = seconds.get(stage, 0.0) + taken
  return compiled


def reserved(compiled) -> int:
  """Gives bytes on a device beside the arguments; 0 where XLA does not tell.

  Args:
    compiled: a compiled program.
  """
  found = compiled.memory_analysis()
  if not found:
    return 0
  fresh = found.output_size_in_bytes - found.alias_size_in_bytes
  return found.temp_size_in_bytes + max(fresh, 0)


def reads_rounds(
  algorithm: Algorithm, args: tuple, hparams: HParams, rounds: int
) -> bool:
  """Tells whether a round depends on the number of rounds, by tracing it.

  Args:
    algorithm: of the run.
    args: (key, state, population).
    hparams: the other hyperparameters.
    rounds: of the run.
  """

  def step(rounds, *args):
    return algorithm.step(*args, {**hparams, 'rounds': rounds})

  traced = jax.make_jaxpr(step)(jnp.float32(rounds), *args).jaxpr
  # Over several devices it is handed into their part also where nothing
  # there reads it, so what counts is whether the results need it.
  _, needed = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
  return needed[0]
