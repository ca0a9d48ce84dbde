"""Counts on the host how often each device took part in a round."""

import ml_collections
import numpy as np

from relief_jax import algorithms
from relief_jax.rounds.records import RoundInfo
from relief_jax.types import Fleet


class Picks:
  """Counts the rounds of all devices, of a run that draws participants.

  Attributes:
    counts: [N] int64, rounds that each device took part in.
  """

  def __init__(self, fleet: Fleet):
    """Starts before the first round.

    Args:
      fleet: [N].
    """
    identity = np.asarray(fleet.id)
    self._real = np.asarray(fleet.samples) > 0
    self._order = np.argsort(identity)
    self._sorted = identity[self._order]
    self.counts = np.zeros(len(identity), np.int64)
    self._known = True

  def add(self, infos: RoundInfo) -> None:
    """Adds rounds.

    Args:
      infos: numpy arrays with a leading axis of rounds, [R, K, ...].
    """
    who = infos.client[infos.seconds > 0]
    place = self._order[np.searchsorted(self._sorted, who)]
    np.add.at(self.counts, place, 1)

  def record(self) -> dict[str, float]:
    """Gives the share of devices that took part and Jain's index, by field.

    Jain's index of the counts x_n of N devices is (sum x)^2 / (N sum x^2): 1
    where all are equal, 1 / N where it was always the same one
    (https://arxiv.org/abs/cs/9809099). {} before the first round.
    """
    counts = self.counts[self._real].astype(np.float64)
    if not self._known or not counts.any():
      return {}
    return {
      'picked_share': float((counts > 0).mean()),
      'picks_fairness': float(
        counts.sum() ** 2 / (counts.size * (counts**2).sum())
      ),
    }

  def restore(self, counts: np.ndarray, done: int) -> None:
    """Restores counts.

    Args:
      counts: [N]; zeros where an older version, which kept none, wrote the
        rounds: then nothing is told of them.
      done: rounds.
    """
    self.counts = np.array(counts, np.int64)
    self._known = done == 0 or bool(self.counts.any())


def make(config: ml_collections.ConfigDict, fleet: Fleet) -> Picks | None:
  """Makes the counts of a run; None where everybody takes part.

  Args:
    config: of the run.
    fleet: [N].
  """
  everybody = config.clients_per_round in (0, config.clients)
  if everybody or not algorithms.facts(config.method).rounds:
    return None
  return Picks(fleet)
