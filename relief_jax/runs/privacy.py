"""Computes what a run with noise is worth: epsilon at a delta.

Two populations are neighbours here where *all windows of one device* are others
(`REPLACE_ONE`); its sensors, its speed and that it is there are public. A
clipped update then moves a sum by up to 2 C, so noise of deviation z C is worth
a multiplier of z / 2. Epsilons are upper bounds that dp-accounting computes in
Renyi divergences:

    epsilon        of the model, round by round. Noise by the server: of its
                   sums, for whoever sees models. Noise by devices: of the sum
                   of n noisy updates, for a server that sees sums alone;
                   multiplier z sqrt(n) / 2 with the smallest n of the blocks
                   that a device trained, in every round that it takes part in
    epsilon_local  of one device's own noisy updates, for a server that sees
                   each of them: z / 2 in these rounds

A server knows whom it has drawn. Who sees models alone does not, of a draw of
fixed size without replacement, which `SampledWithoutReplacementDpEvent` counts
(Wang et al., 2019, https://arxiv.org/abs/1808.00087). But the mean of a block
tells how many devices are in it, hence how many of each kind take part. So
(**ours**) the draw hides a device only among those of its kind: k of the m
devices with the same sensors (and, where plans follow a budget, the same speed
and memory) were in this round's draw. Where all were, it hides nothing. Where
the bound of the draw exceeds that of the Gaussian mechanism alone, the latter
counts, order by order. The largest epsilon over kinds is that of the run.
"""

import functools
from typing import Any

import ml_collections
import numpy as np

from relief_jax import algorithms
from relief_jax.errors import InputError
from relief_jax.rounds.records import RoundInfo
from relief_jax.types import Fleet
from relief_jax.world import World

ORDERS = (
  *(1.25, 1.5, 1.75),
  *range(2, 21),
  *(24, 28, 32, 40, 48, 64, 128),
)
# Owners of a sensor in a round up to which its noise is named. **Ours.**
FEW = 10


class Accountant:
  """Adds up the privacy loss of rounds.

  Attributes:
    rdp: [kinds, orders] float64, Renyi divergence of the server's sums so far.
    sums: [N] float64, of 1 / multiplier^2 over the rounds of every device,
      which Renyi divergences of Gaussian mechanisms add up to: of sums of
      devices' noisy updates.
    turns: [N] int64, rounds that every device took part in.
  """

  def __init__(self, config: ml_collections.ConfigDict, fleet: Fleet):
    """Starts before the first round.

    Args:
      config: of a run with noise.
      fleet: [N].

    Raises:
      InputError: dp-accounting is not installed.
    """
    _library()
    self._multiplier = float(config.hparams.noise_multiplier)
    self._on_devices = config.privacy.noise == 'device'
    self._delta = float(config.privacy.delta)
    self._kind, self._size = _kinds(config, fleet)
    identity = np.asarray(fleet.id)
    self._order = np.argsort(identity)
    self._sorted = identity[self._order]
    self.rdp = np.zeros((len(self._size), len(ORDERS)))
    self.sums = np.zeros(len(identity))
    self.turns = np.zeros(len(identity), np.int64)

  def add(self, infos: RoundInfo) -> None:
    """Adds rounds.

    Args:
      infos: numpy arrays with a leading axis of rounds, [R, K, ...].
    """
    for number, (client, trained) in enumerate(
      zip(infos.client, infos.trained, strict=True)
    ):
      here = trained.any(-1)
      place = self._order[np.searchsorted(self._sorted, client[here])]
      self.turns[place] += 1
      if self._on_devices:
        weight = np.asarray(infos.extra['noisy_weight'][number])
        share = _share(weight)[here]
        self.sums[place] += (2 / (self._multiplier * share)) ** 2
        continue
      for kind, count in enumerate(np.bincount(self._kind[place])):
        if count:
          self.rdp[kind] += divergence(
            int(self._size[kind]), int(count), self._multiplier / 2
          )

  def record(self) -> dict[str, float]:
    """Gives epsilon and delta so far, by the name of their field."""
    found = {'epsilon': max(self._epsilon(row) for row in self.rdp)}
    if self._on_devices:
      half = np.array(ORDERS) / 2
      local = self.turns.max() * (2 / self._multiplier) ** 2
      found = {
        'epsilon': self._epsilon(half * self.sums.max()),
        'epsilon_local': self._epsilon(half * local),
      }
    return {**found, 'delta': self._delta}

  def _epsilon(self, rdp: np.ndarray) -> float:
    if not rdp.any():
      return 0.0
    return float(_library().rdp.compute_epsilon(ORDERS, rdp, self._delta)[0])

  def snapshot(self) -> dict[str, Any]:
    """Gives the part of it that a later process needs to go on."""
    return {
      'rdp': self.rdp.copy(),
      'sums': self.sums.copy(),
      'turns': self.turns.copy(),
    }

  def restore(self, snapshot: dict[str, Any]) -> None:
    """Restores a snapshot.

    Args:
      snapshot: from `snapshot`.
    """
    self.rdp = np.array(snapshot['rdp'], np.float64)
    self.sums = np.array(snapshot['sums'], np.float64)
    self.turns = np.array(snapshot['turns'], np.int64)


def make(config: ml_collections.ConfigDict, fleet: Fleet) -> Accountant | None:
  """Builds the accountant of a run, None for one without noise.

  Args:
    config: of the run.
    fleet: [N].

  Raises:
    InputError: as `Accountant`.
  """
  if config.privacy.noise == 'off' or not config.hparams.noise_multiplier:
    return None
  return Accountant(config, fleet)


@functools.cache
def divergence(source: int, sample: int, multiplier: float) -> np.ndarray:
  """Computes the Renyi divergence of one round at `ORDERS`.

  Args:
    source: devices of a kind.
    sample: of them that were drawn.
    multiplier: deviation of the noise over the sensitivity.
  """
  library = _library()
  event = library.GaussianDpEvent(multiplier)
  found = _rdp(library, event)
  if sample < source:
    drawn = library.SampledWithoutReplacementDpEvent(source, sample, event)
    found = np.minimum(found, _rdp(library, drawn))
  found.flags.writeable = False
  return found


def _rdp(library: Any, event: Any) -> np.ndarray:
  relation = library.NeighboringRelation.REPLACE_ONE
  return np.array(
    library.rdp.RdpAccountant(ORDERS, relation).compose(event).rdp
  )


def _share(weight: np.ndarray) -> np.ndarray:
  """Computes the noise of sums over a device's own, [K]; sqrt(n) of n alike.

  Of the block in which it is least. Infinite for a device that no sum holds.

  Args:
    weight: [K, G] in the mean, 0 where a device did not train or count.
  """
  whole = np.sqrt(np.square(weight.astype(np.float64)).sum(0, keepdims=True))
  over = np.full(weight.shape, np.inf)
  np.divide(whole, weight, out=over, where=weight > 0)
  return over.min(-1)


def _kinds(
  config: ml_collections.ConfigDict, fleet: Fleet
) -> tuple[np.ndarray, np.ndarray]:
  """Finds devices whose part in a round follows from the same facts.

  Returns:
    The kind of each device [N], and their number by kind; devices without
    windows, which never take part, count in none.
  """
  facts = [np.asarray(fleet.owned, np.float64)]
  budgeted = algorithms.facts(config.method).budgeted
  if budgeted or fleet.memory is not None or config.over_budget == 'sit_out':
    facts.append(np.asarray(fleet.speed, np.float64)[:, None])
    if fleet.memory is not None:
      facts.append(np.asarray(fleet.memory, np.float64)[:, None])
  rows = np.concatenate(facts, 1)
  _, kind = np.unique(rows, axis=0, return_inverse=True)
  kind = kind.reshape(-1)
  real = np.asarray(fleet.samples) > 0
  return kind, np.bincount(kind[real], minlength=kind.max() + 1)


def warnings(config: ml_collections.ConfigDict, world: World) -> list[str]:
  """Names what noise does to small cohorts, and whom it does not hide.

  Args:
    config: of the run.
    world: of it.
  """
  if config.privacy.noise == 'off' or not config.hparams.noise_multiplier:
    return []
  fleet, found = world.population.fleet, []
  owned = np.asarray(fleet.owned)[np.asarray(fleet.samples) > 0]
  share = (config.clients_per_round or config.clients) / config.clients
  few = [
    f'{name!r}: {owners} owner(s), {owners * share:.1f} of them in a round'
    for name, owners in zip(
      world.spec.modalities, owned.sum(0).tolist(), strict=True
    )
    if owners * share <= FEW
  ]
  if few:
    root = 'sqrt(n)' if config.privacy.noise == 'device' else 'n'
    found.append(
      f'privacy.noise: small cohorts of {"; ".join(few)}. A mean over n '
      'updates bears noise of deviation noise_multiplier * clip_norm / '
      f'{root}'
    )
  persons, devices = len(world.subjects.get('train', ())), len(owned)
  if persons < devices:
    found.append(
      f'epsilon is of the windows of one device: {devices} devices hold those '
      f'of {persons} persons, who are on several devices and less hidden'
    )
  return found


def _library() -> Any:
  """Imports dp-accounting, which comes with an extra of its own."""
  try:
    import dp_accounting
    import dp_accounting.rdp
  except ModuleNotFoundError as error:
    if error.name != 'dp_accounting':  # it is there and lacks something else
      raise
    raise InputError(
      'config.privacy.noise, and no package dp_accounting',
      "the extra 'privacy' of relief_jax, whose accountant computes epsilon",
      "pip install 'relief_jax[privacy]'",
    ) from None
  return dp_accounting
