"""Compiles rounds and evaluation, once for all runs of the same shapes."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from relief_jax import algorithms, evaluation, tree
from relief_jax.models.encoders import Spec
from relief_jax.recipe import Setting
from relief_jax.types import PyTree, Task


class Call(NamedTuple):
  """What is static about a program beside the setting.

  Attributes:
    method: in `ALGORITHMS`.
    spec: of the model.
    rounds: in one call.
    even: the run's rounds are a multiple of that, so that no call has
      rounds to skip.
    masks: [S, M] bool, modality subsets that are tested.
  """

  method: str
  spec: Spec
  rounds: int
  even: bool
  masks: np.ndarray


class Program(NamedTuple):
  """Compiled functions.

  Attributes:
    rounds: (state, population, key, first round, all rounds, hparams) ->
      (state, infos [rounds, ...]); the state is donated.
    evaluate: (params, frozen, test bank) -> confusion matrices.
    seconds: spent on tracing and on compiling `rounds`.
    memory: bytes that XLA reserves for `rounds` beside its arguments.
  """

  rounds: Callable[..., tuple[PyTree, Any]]
  evaluate: Callable[..., jax.Array]
  seconds: dict[str, float]
  memory: int


_programs: dict[str, Program] = {}


def get(
  task: Task, setting: Setting, call: Call, args: tuple
) -> tuple[Program, bool]:
  """The program, from memory where an equal one was compiled before.

  Values (seed, hyperparameters, data, budgets) are arguments: a sweep over
  them compiles nothing.

  Args:
    task: the model.
    setting: of the round.
    call: what else is static.
    args: of `Program.rounds`, for their shapes.

  Returns:
    The program, and whether it had to be compiled.
  """
  shapes = jax.tree.map(lambda v: (v.shape, str(v.dtype)), args)
  static = setting._replace(hparams={})
  identity = repr((call, static, shapes))
  fresh = identity not in _programs
  if fresh:
    _programs[identity] = _compile(task, setting, call, args)
  return _programs[identity], fresh


def clear() -> None:
  """Forgets all programs (long sweeps over unlike shapes)."""
  _programs.clear()


def _compile(task, setting, call, args) -> Program:
  factory = algorithms.ALGORITHMS[call.method]

  def rounds(state, population, key, first, total, hparams):
    # Built here, so that hyperparameters are traced and never constants.
    algorithm = factory(task, setting._replace(hparams=hparams))

    def step(state, number):
      return algorithm.step(jax.random.fold_in(key, number), state, population)

    def guarded(state, number):
      def skip(state, number):
        return state, tree.zeros_like_output(step, state, number)[1]

      return jax.lax.cond(number < total, step, skip, state, number)

    return jax.lax.scan(
      step if call.even else guarded, state, first + jnp.arange(call.rounds)
    )

  personal = factory(task, setting).personal
  fill = 'skip' if personal else setting.fill

  def evaluate(params, frozen, test):
    def one(params):
      return evaluation.confusions(
        task, params, frozen, test, jnp.asarray(call.masks), fill
      )

    return jax.lax.map(one, params) if personal else one(params)

  everywhere = None
  if setting.layout.mesh:
    everywhere = NamedSharding(setting.layout.mesh, P())
  jitted = jax.jit(
    rounds,
    donate_argnums=0,
    in_shardings=everywhere,
    out_shardings=everywhere,
  )
  started = time.perf_counter()
  lowered = jitted.lower(*args)
  traced = time.perf_counter()
  compiled = lowered.compile()
  seconds = {
    'trace': traced - started,
    'compile': time.perf_counter() - traced,
  }
  analysis = compiled.memory_analysis()
  memory = analysis.temp_size_in_bytes if analysis else 0
  return Program(compiled, jax.jit(evaluate), seconds, memory)
