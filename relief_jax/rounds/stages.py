"""Two algorithms one after the other: one algorithm made of two."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relief_jax.rounds.records import Algorithm
from relief_jax.settings import HParams
from relief_jax.types import Array, Population, PyTree


class StagesState(NamedTuple):
  """Holds the states of both stages.

  Attributes:
    first: of the first stage; it rests in the second.
    second: of the second stage, made anew after every round of the first.
    round: [] int32, rounds done.
  """

  first: PyTree
  second: PyTree
  round: Array


def stages(
  first: Algorithm,
  second: Algorithm,
  begin: Callable[[HParams], Array],
  hand_over: Callable[[PyTree, PyTree, Population], PyTree],
) -> Algorithm:
  """Runs one algorithm until a round, and from there on another.

  What is tested is always the second one's model: `hand_over` makes it of the
  first one's.

  Args:
    first: of the rounds before `begin`.
    second: of the others; its infos have the fields of the first one's.
    begin: hyperparameters -> [] int32, the first round of the second stage.
    hand_over: (state of the first, state of the second, population) -> state
      of the second, after every round of the first stage.
  """

  def init(key, params):
    # Copies: a state's arrays are given away one by one.
    mine = jax.tree.map(jnp.copy, params)
    return StagesState(
      first.init(key, mine), second.init(key, params), jnp.int32(0)
    )

  def early(key, state: StagesState, population, hparams):
    one, info = first.step(key, state.first, population, hparams)
    two = hand_over(one, state.second, population)
    return state._replace(first=one, second=two), info

  def late(key, state: StagesState, population, hparams):
    two, info = second.step(key, state.second, population, hparams)
    return state._replace(second=two), info

  def step(key, state: StagesState, population, hparams):
    state, info = jax.lax.cond(
      state.round < begin(hparams),
      early,
      late,
      key,
      state,
      population,
      hparams,
    )
    return state._replace(round=state.round + 1), info

  return second._replace(
    init=init, step=step, params=lambda state: second.params(state.second)
  )
