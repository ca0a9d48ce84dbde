"""How often devices took part, on the host, and in old checkpoints."""

import numpy as np
import pytest

from relief_jax.rounds.records import RoundInfo
from relief_jax.runs.picks import Picks, make
from relief_jax.storage.checkpoints import Checkpoints
from relief_jax.types import Fleet
from tests.support import tiny


def fleet(ids, samples):
  ids, samples = np.asarray(ids), np.asarray(samples)
  return Fleet(ids, None, None, samples, *[None] * 5)


def infos(client, seconds):
  """[R, K] ids and seconds; everything else is left out."""
  return RoundInfo(
    np.asarray(client), None, None, None, None, np.asarray(seconds), None, None
  )


def test_counts_are_of_ids_that_worked_and_padding_is_nobody():
  picks = Picks(fleet([7, 3, 5, 9], [4, 4, 4, 0]))
  assert picks.record() == {}
  picks.add(infos([[3, 7], [3, 5], [3, 7]], [[1, 1], [1, 0], [2, 0]]))
  np.testing.assert_array_equal(picks.counts, [1, 3, 0, 0])
  assert picks.record() == {
    'picked_share': 2 / 3,
    'picks_fairness': pytest.approx(16 / (3 * 10)),
  }


def test_a_checkpoint_from_before_goes_on_and_tells_nothing(tmp_path):
  """Counts of rounds that nobody counted would be wrong ones."""
  new = Picks(fleet([0, 1], [1, 1]))
  like = {'round': np.int64(0), 'picks': new.counts}
  with Checkpoints(tmp_path) as kept:
    kept.save(5, {'round': np.int64(5)})
    found = kept.restore(like)
  assert found['round'] == 5
  new.restore(found['picks'], 5)
  new.add(infos([[0, 1]], [[1, 1]]))
  assert new.record() == {}
  again = Picks(fleet([0, 1], [1, 1]))
  again.restore(np.array([2, 2]), 2)
  assert again.record() == {'picked_share': 1.0, 'picks_fairness': 1.0}


def test_nothing_is_counted_where_everybody_takes_part():
  some = fleet(range(6), [1] * 6)
  assert make(tiny.config(), some) is None
  assert make(tiny.config(clients_per_round=6), some) is None
  assert make(tiny.config(method='centralized', clients_per_round=3), some) is (
    None
  )
  assert make(tiny.config(clients_per_round=3), some) is not None
