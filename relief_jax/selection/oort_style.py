"""Picks by utility and speed, after Oort (Lai et al., OSDI 2021).

https://arxiv.org/abs/2010.06081. Grade: reconstruction, from the code that its
authors published (https://github.com/SymbioticLab/FedScale, thirdparty/oort);
defaults are those of FedScale's arguments. In round r = 1, 2, ...

    U_n = |B_n| * loss_n                   of its last round L_n, 0: no update
    s_n = (min(U_n, q) - U_min) / (U_max - U_min) + sqrt(.1 log r / L_n)
    s_n *= (T / t_n)^alpha                 where t_n > T
    e   = max(e_0 d^r, e_min)                  share that was never picked

q is the quantile `clip` of the utilities, T the quantile `pace` of the seconds
t_n of a round. (1 - e) K devices are drawn by s_n without replacement among
those of at least `cutoff` times the ((1 - e) K)-th largest s; e K are drawn
among the never picked by |B_n| (T / t_n)^alpha, with the seconds that their
sensors, speed and links let expect. Who was picked more than `most_picks` times
is only picked where others are too few.

**Ours**: the loss is the mean training loss of the round, where the paper takes
the root of the mean of squares over windows; |B_n| are the windows of the
round, not more than there are; T stays at its quantile, where the paper's pacer
raises it when utilities no longer change; a round is full as long as enough
devices are there (the published code asks fewer once all are known); draws
without replacement are Gumbel draws.

*Told*: a device sends its loss, 4 bytes a round. The number of its windows, its
sensors, speed and links are told once and are not charged, as with
`weight=samples`; that a server knows who is there is not charged either.
"""

import jax
import jax.numpy as jnp

from relief_jax.selection import picking
from relief_jax.selection.record import Picked, View
from relief_jax.types import Array

KEYS = (
  'exploration',
  'exploration_decay',
  'exploration_least',
  'pace',
  'penalty',
  'clip',
  'cutoff',
  'most_picks',
)
_BONUS = 0.1
_TINY = 1e-20
_SPREAD = 1e-4  # least difference of utilities


def oort_style(view: View, size: int) -> Picked:
  """Picks by utility and speed, and a share of devices never picked.

  Args:
    view: of the round.
    size: K.
  """
  value = {k: view.value(k) for k in KEYS}
  seen, here = view.seen, view.here
  often = (value['most_picks'] > 0) & (seen.picks > value['most_picks'])
  known, new = here & ~often & (seen.picks > 0), here & (seen.picks == 0)
  slow = _slowness(view, value['pace'], value['penalty'])
  score = jnp.where(known, utilities(view, known, value['clip']) * slow, 0.0)

  share = explored(view.round_index, value)
  wanted = size - jnp.floor(size * share).astype(jnp.int32)
  exploit = jnp.maximum(wanted, size - new.sum())
  exploit = jnp.minimum(exploit, known.sum())
  explore = jnp.minimum(size - exploit, new.sum())

  ranked = jnp.where(known, score, -jnp.inf)
  limit = _at(ranked, size, exploit) * value['cutoff']
  marked = _drawn(view, score, known & (score >= limit), exploit, size)
  marked |= _drawn(view, view.windows * slow, new, explore, size)
  # Then those picked too often, and last who is not there.
  rest = jnp.where(here & often, -seen.picks.astype(jnp.float32), -jnp.inf)
  rest = jnp.where(marked, jnp.inf, rest)
  marked = picking.largest(rest, view.id, jnp.int32(size), size)
  return picking.picked(marked, here, size)


def explored(round_index: Array, value: dict[str, Array]) -> Array:
  """Computes the share of a round for devices that were never picked, [].

  Args:
    round_index: [] int32, from 0.
    value: of `exploration`, `exploration_decay` and `exploration_least`.
  """
  number = (round_index + 1).astype(jnp.float32)
  falling = value['exploration'] * value['exploration_decay'] ** number
  return jnp.maximum(falling, value['exploration_least'])


def utilities(view: View, known: Array, clip: Array) -> Array:
  """Computes normalised utilities with the bonus for a long absence, [N].

  Args:
    view: of the round.
    known: [N] bool, who may be picked for its utility.
    clip: [] quantile at which utilities are cut.
  """
  utility = view.seen.utility
  told = known & (utility > 0)
  low = 0.999 * jnp.where(told, utility, jnp.inf).min()
  high = jnp.where(told, utility, 0.0).max()
  low = jnp.where(told.any(), low, 0.0)
  most = picking.quantile(utility, told, clip)
  scaled = (jnp.minimum(utility, most) - low) / jnp.maximum(high - low, _SPREAD)
  now = (view.round_index + 1).astype(jnp.float32)
  then = jnp.maximum(view.seen.last + 1, 1).astype(jnp.float32)
  bonus = jnp.sqrt(_BONUS * jnp.log(now) / then)
  return jnp.maximum(scaled, 0.0) + bonus  # without an update the bonus alone


def _slowness(view: View, pace: Array, penalty: Array) -> Array:
  """Computes what a device's score is multiplied by for its time, [N]."""
  preferred = picking.quantile(view.seconds, view.here, pace)
  ratio = preferred / jnp.maximum(view.seconds, _TINY)
  return jnp.where(view.seconds > preferred, ratio**penalty, 1.0)


def _at(score: Array, size: int, count: Array) -> Array:
  """Gives the `count`-th largest score, [], of at most `size`."""
  return jax.lax.top_k(score, size)[0][jnp.maximum(count - 1, 0)]


def _drawn(
  view: View, weight: Array, among: Array, count: Array, size: int
) -> Array:
  """Draws devices by weight without replacement, [N] bool."""
  value = jnp.log(jnp.maximum(weight, _TINY)) + view.noise
  value = jnp.where(among, value, -jnp.inf)
  return picking.largest(value, view.id, count, size)
