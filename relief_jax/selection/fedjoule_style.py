"""Picks by utility per joule within energy budgets, after FedJoule.

https://arxiv.org/abs/2506.10413 (Banerjee et al., Euro-Par 2025). Grade:
reconstruction from the abstract: clients are selected for accuracy within an
energy limit over all of them and all rounds, by contributions and predicted
energy. The paper's integer programs, its approximate Shapley values and its
energy models are not here; the rule is **ours**.

    U_n  = |B_n| * loss_n          of its last round; before that the largest
    v_n  = U_n / E_n               E_n: its joules then, before that expected
    A_r  = (J - joules spent) / rounds left
    pick the K largest v_n in order, passing over whom A_r no longer holds

A device whose joules so far and E_n exceed `battery` is not picked any more. So
rounds get smaller where energy is short, and nobody works once it is spent.
Losses of devices that rest are old ones and stay high, which brings them back.
E_n is what the last round took, so a run may end a round's difference above or
below J.

*Told*: a device sends its loss and its joules, 8 bytes a round; the rest as
`oort_style`.
"""

import jax
import jax.numpy as jnp

from relief_jax.selection import picking
from relief_jax.selection.record import Picked, View
from relief_jax.types import Array

KEYS = ('joules', 'battery')
_TINY = 1e-20


def fedjoule_style(view: View, size: int) -> Picked:
  """Picks by utility per joule, as long as the energy lasts.

  Args:
    view: of the round.
    size: K.
  """
  battery = view.value('battery')
  seen = view.seen
  holds = (battery == 0) | (seen.spent + view.joules <= battery)
  may = view.here & holds
  value = jnp.where(may, per_joule(view), -jnp.inf)
  marked = picking.largest(value, view.id, jnp.int32(size), size)
  place = jnp.nonzero(marked, size=size)[0].astype(jnp.int32)
  asked = may[place] & _fits(
    value[place], view.id[place], view.joules[place], may[place], allowed(view)
  )
  return Picked(place, asked)


def per_joule(view: View) -> Array:
  """Computes utility per joule, [N] float32, optimistic before a first round.

  Args:
    view: of the round.
  """
  seen = view.seen
  known = seen.picks > 0
  most = jnp.where(known, seen.utility, 0.0).max()
  first = jnp.where(most > 0, most, 1.0)
  utility = jnp.where(known, seen.utility, first)
  return utility / jnp.maximum(view.joules, _TINY)


def allowed(view: View) -> Array:
  """Computes the joules that a round may take, []; infinite without a limit.

  Args:
    view: of the round.
  """
  limit = view.value('joules')
  left = jnp.maximum(view.hparams['rounds'] - view.round_index, 1)
  share = (limit - view.seen.spent.sum()) / left
  return jnp.where(limit > 0, share, jnp.inf)


def _fits(
  value: Array, ids: Array, joules: Array, may: Array, most: Array
) -> Array:
  """Marks whom the round's joules hold, from the best on, [K] bool.

  Args:
    value: [K].
    ids: [K].
    joules: [K] expected.
    may: [K] bool.
    most: [] joules of the round.
  """
  number = jnp.arange(value.size)
  *_, order = jax.lax.sort((-value, ids, number), num_keys=2)

  def one(spent, place):
    take = may[place] & (spent + joules[place] <= most)
    return spent + jnp.where(take, joules[place], 0.0), take

  _, taken = jax.lax.scan(one, jnp.zeros(()), order)
  return jnp.zeros(value.size, bool).at[order].set(taken)
