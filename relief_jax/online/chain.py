"""Two-state Markov chains without a state: outages that come in bursts.

A chain that fails with probability a and recovers with b, a + b <= 1, can be
driven by one uniform number a round: below a it is down, from 1 - b on it is
up, in between it stays as it was. So the last decisive number fixes the state,
and looking back far enough makes it a pure function of the round (**ours**; the
same idea as coupling from the past, Propp and Wilson 1996).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relief_jax.errors import InputError
from relief_jax.online import keys
from relief_jax.types import Array

# How often no number within the look-back is decisive; the state is then drawn
# from the stationary distribution.
_MISS = 1e-6
_LONGEST = 4096


class Chain(NamedTuple):
  """Holds the two-state Markov chains of all clients.

  Attributes:
    fail: [N, ...] float32, a, of those that are up.
    recover: [N, ...] float32, b, of those that are down.
    back: [L] rounds looked back; only its length counts.
  """

  fail: Array
  recover: Array
  back: Array


def make(rate: np.ndarray, length: float, key: str) -> Chain:
  """Builds chains that are down for a share of the rounds, some at a time.

  Args:
    rate: [N, ...] share of rounds that are down.
    length: mean length of an outage in rounds. Where a rate asks for longer
      ones, 1 / (1 - rate), they are so long.
    key: of the config, for messages.

  Raises:
    InputError: outages shorter than independent rounds would make them, or so
      long that a round would have to look back over thousands.
  """
  mean = float(np.mean(rate))
  least = 1 / max(1 - mean, 1e-9)
  if not length >= least - 1e-6:
    cure = f'set --config.{key}={math.ceil(least)}'
    if least > _LONGEST / 100:  # no outage may be so long
      cure = f'let fewer rounds go without, by the rate beside {key}'
    raise InputError(
      f'config.{key} is {length} at a rate of {mean:g}',
      f'at least {least:.3g} rounds, the length of outages in rounds that are '
      'independent',
      cure,
    )
  rate = np.asarray(rate, np.float64)
  up = np.maximum(1 - rate, 1e-12)
  recover = np.where(rate < 1, 1 / np.maximum(length, 1 / up), 0.0)
  fail = np.where(rate < 1, rate * recover / up, 1.0)
  moving = (rate > 0) & (rate < 1)
  keep = np.max(1 - fail - recover, where=moving, initial=0.0)
  back = math.ceil(math.log(_MISS) / math.log(keep)) if keep > 1e-9 else 1
  if back > _LONGEST:
    raise InputError(
      f'config.{key} is {length}: {back} rounds to look back over',
      f'outages so short that {_LONGEST} do',
      f'lower --config.{key}',
    )
  return Chain(
    fail=jnp.asarray(fail, jnp.float32),
    recover=jnp.asarray(recover, jnp.float32),
    back=jnp.zeros(back, jnp.int8),
  )


def down(
  chain: Chain, key: Array, ids: Array, place: Array, round_index: Array
) -> Array:
  """Tells whether each participant's chains are down in a round, [K, ...] bool.

  Args:
    chain: of all clients.
    key: of the purpose.
    ids: [K] of the participants.
    place: [K] places in the population.
    round_index: [] int32.
  """
  fail, recover = chain.fail[place], chain.recover[place]
  length = chain.back.shape[0]

  def draw(when):
    return keys.uniform(keys.at(key, when), ids, fail.shape[1:])

  def step(state, back):
    value = draw(round_index - back)
    return (value < fail) | (state & (value < 1 - recover)), None

  share = fail / jnp.maximum(fail + recover, 1e-30)
  first = draw(round_index - length) < share
  return jax.lax.scan(step, first, jnp.arange(length)[::-1])[0]
