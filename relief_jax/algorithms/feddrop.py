"""FedDrop (https://arxiv.org/abs/2109.15258) and Federated Dropout.

Every device gets a random sub-network of its own in every round: units of the
hidden layers are kept with probability 1 - gamma_n and their activations
scaled by 1 / (1 - gamma_n). Grade: abstract published; mask and cost secondary
(https://arxiv.org/abs/2501.00379). `exact` keeps floor((1 - gamma) U) units of
every layer, Federated Dropout (https://arxiv.org/abs/1812.07210).

*Budget*: 'sqrt', the secondary source's gamma = max(0, 1 - sqrt(b_n / F_n)),
holds where all FLOPs scale with the square of the share; 'fit' (ours) solves
the model's own F_n(1 - gamma) = b_n, a parabola, since inputs and classes stay
whole. That holds in expectation; where a round's draw costs more, the units
of the largest draws leave until it fits (ours): no round exceeds the budget,
and one whose draw is cheap leaves some of it. Who affords less than a sixteenth
of the units sits out (ours). *Bytes*: the kept elements, both ways; masks are
derived from the round's key on both sides and cost none. *Mean* (open in the
source): `contributors`, over those who hold an element, or `all`, which with
the scaling has less bias and more variance.
"""

import dataclasses

import jax
import jax.numpy as jnp

from relief_jax.aggregation.mean import masked_mean
from relief_jax.algorithms import fedavg
from relief_jax.budgets import widths
from relief_jax.budgets.greedy import SLACK
from relief_jax.clients import batches
from relief_jax.clients.device import Device
from relief_jax.clients.work import local_sgd
from relief_jax.costs import step_flops
from relief_jax.keys import name, option, switch
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Traits
from relief_jax.settings import Setting
from relief_jax.task import Plan, SubModel, Task
from relief_jax.types import Array

SMALLEST = 1 / 16


@dataclasses.dataclass(frozen=True)
class Options:
  """Holds the options of FedDrop."""

  rate: str = option(
    name('fit', ('fit', 'sqrt'), 'how a budget becomes a dropout rate')
  )
  exact: bool = option(
    switch(False, 'a fixed number of units per layer: Federated Dropout')
  )
  denominator: str = option(
    name(
      'contributors',
      ('contributors', 'all'),
      'a group is averaged over those who trained it, or over all',
    )
  )
  scale: bool = option(switch(True, 'activations by 1 / (1 - rate)'))


@Facts(options=Options, budgeted=True)
def feddrop(task: Task, setting: Setting) -> Method:
  """Builds FedDrop; with nothing dropped it is FedAvg.

  Args:
    task: the model, with `widths`.
    setting: the round, with `Options`.

  Raises:
    InputError: a model without a narrower form.
  """
  units = widths.required(task, 'feddrop')
  options = setting.options

  def keep(key: Array, limit: Array) -> list[Array]:
    """Draws the kept units of one client, the same here and on the device."""
    return widths.drawn(units, key, limit, options.exact)

  def price(key: Array, limit: Array, run: Array, trained: Array) -> Array:
    """Computes FLOPs per sample of one client's draw, []."""
    return step_flops(units.work(widths.counts(keep(key, limit))), run, trained)

  def fitted(key: Array, share: Array, run, trained, budget) -> Array:
    """Finds the limit up to which one client keeps units, []; 0 to sit out.

    The share, or the most below it whose draw is within the budget: less keeps
    fewer units, so that halving finds it to the last bit.
    """

    def fits(limit):
      return price(key, limit, run, trained) <= budget * (1 + SLACK)

    def halve(_, ends):
      low, high = ends
      middle = (low + high) / 2
      good = fits(middle)
      return jnp.where(good, middle, low), jnp.where(good, high, middle)

    low, _ = jax.lax.fori_loop(0, 24, halve, (jnp.float32(0.0), share))
    return jnp.where(fits(share), share, jnp.where(fits(low), low, 0.0))

  def share(run, trained, budget) -> Array:
    """Computes 1 - gamma of one client, []; 0 where it sits out."""
    *hidden, classes = units.sizes

    def flops(part):
      work = units.work([part * size for size in hidden] + [classes])
      return step_flops(work, run, trained)

    if options.rate == 'sqrt':
      found = jnp.sqrt(budget / flops(1.0))
    else:
      # F(p) = c + b p + a p^2 through three of its points.
      c, middle, whole = flops(0.0), flops(0.5), flops(1.0)
      a = 2 * (whole + c) - 4 * middle
      b = whole - c - a
      room = jnp.maximum(budget - c, 0.0)
      found = 2 * room / (b + jnp.sqrt(jnp.square(b) + 4 * a * room))
      found = jnp.where(jnp.isinf(room), 1.0, found)
    # A budget of the whole model's cost is enough, whatever the rounding.
    found = jnp.where(found > 1 - 1e-5, 1.0, found)
    return jnp.where(found >= SMALLEST, found, 0.0)

  def plan(server, round) -> Plan:
    del server
    whole = fedavg.everybody(setting, round)
    rows = whole.run, whole.trained, round.budget
    kept = jax.vmap(share)(*rows)
    keys = batches.client_keys(round.key, round.fleet)
    limit = jax.vmap(fitted)(keys, kept, *rows)
    work = jax.vmap(lambda k, s: units.work(widths.counts(keep(k, s))))(
      keys, limit
    )
    return widths.narrow(whole, limit > 0, (kept, limit), work)

  def kept(params, device: Device) -> SubModel:
    share, limit = device.args
    mask = widths.elements(units, params, keep(device.key, limit))
    factor = 1 / share if options.scale else jnp.float32(1.0)
    return SubModel(mask, widths.scaled(units, mask, factor))

  return fedavg.fedavg(task, setting)._replace(
    plan=plan,
    client=local_sgd(task, submodel=kept),
    aggregate=masked_mean(task, options.denominator),
    traits=Traits(submodels=True),
  )
