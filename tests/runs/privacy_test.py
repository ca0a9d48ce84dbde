"""What noise is worth: the library's epsilon, called by hand."""

import math
import sys
from types import SimpleNamespace

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant

from relief_jax import config as config_lib
from relief_jax import simulate
from relief_jax.config import validation
from relief_jax.errors import InputError
from relief_jax.runs import privacy
from relief_jax.storage import records, runner

Drawn = dp_accounting.SampledWithoutReplacementDpEvent
Gaussian = dp_accounting.GaussianDpEvent


def config(noise='server', multiplier=2.0, **keys):
  c = config_lib.default('cohort_mean')
  c.privacy.noise, c.hparams.noise_multiplier = noise, multiplier
  c.hparams.clip_norm = 1.0
  c.update(keys)
  return c


def fleet(owned, samples=None):
  owned = np.asarray(owned, bool)
  count = len(owned)
  return SimpleNamespace(
    id=np.arange(count)[::-1],  # places are not ids
    owned=owned,
    samples=np.ones(count) if samples is None else np.asarray(samples),
    speed=np.arange(count),
    memory=None,
  )


def infos(found, rounds):
  """Rounds in which devices at these places train the blocks they own."""
  return SimpleNamespace(
    client=np.array([found.id[list(places)] for places in rounds]),
    trained=np.array([found.owned[list(places)] for places in rounds]),
    extra={
      'noisy_weight': np.array(
        [found.owned[list(places)] for places in rounds], np.float32
      )
    },
  )


def by_hand(*events, delta=1e-5):
  accountant = RdpAccountant(
    privacy.ORDERS, dp_accounting.NeighboringRelation.REPLACE_ONE
  )
  for event in events:
    accountant.compose(event)
  return accountant.get_epsilon(delta)


def test_everybody_in_every_round_is_a_gaussian_mechanism():
  """A replaced device moves the sum by twice the clip."""
  found = fleet([[1, 1]] * 3 + [[1, 0]] * 4)
  accountant = privacy.Accountant(config(), found)
  assert accountant.record() == {'epsilon': 0.0, 'delta': 1e-5}
  accountant.add(infos(found, [range(7)] * 5))
  want = by_hand(*[Gaussian(1.0)] * 5)
  assert accountant.record()['epsilon'] == pytest.approx(want, rel=1e-12)
  loose = privacy.Accountant(config(privacy={'delta': 1e-3}), found)
  loose.add(infos(found, [range(7)] * 5))
  want = by_hand(*[Gaussian(1.0)] * 5, delta=1e-3)
  assert loose.record()['epsilon'] == pytest.approx(want, rel=1e-12)


def test_a_draw_hides_a_device_among_all_that_are_alike():
  found = fleet([[1, 1]] * 40)
  accountant = privacy.Accountant(config(multiplier=4.0), found)
  accountant.add(infos(found, [range(4), range(10, 14)]))
  want = by_hand(*[Drawn(40, 4, Gaussian(2.0))] * 2)
  assert accountant.record()['epsilon'] == pytest.approx(want, rel=1e-12)
  assert want < by_hand(Gaussian(2.0), Gaussian(2.0))


def test_who_is_rare_is_hidden_least():
  """One of two owners of the second sensor is known to be one of two."""
  found = fleet([[1, 1]] * 2 + [[1, 0]] * 18)
  accountant = privacy.Accountant(config(multiplier=4.0), found)
  accountant.add(infos(found, [(0, 5, 6), (7, 8, 9)]))
  rare = by_hand(Drawn(2, 1, Gaussian(2.0)))
  others = by_hand(Drawn(18, 2, Gaussian(2.0)), Drawn(18, 3, Gaussian(2.0)))
  assert others < rare
  assert accountant.record()['epsilon'] == pytest.approx(rare, rel=1e-12)


def test_speed_makes_a_kind_where_plans_follow_it():
  found = fleet([[1, 1]] * 6)
  accountant = privacy.Accountant(config(over_budget='sit_out'), found)
  assert len(accountant.rdp) == 6


def test_devices_without_windows_hide_nobody():
  found = fleet([[1, 1]] * 10, samples=[0] * 6 + [1] * 4)
  accountant = privacy.Accountant(config(multiplier=4.0), found)
  accountant.add(infos(found, [(6, 7)]))
  want = by_hand(Drawn(4, 2, Gaussian(2.0)))
  assert accountant.record()['epsilon'] == pytest.approx(want, rel=1e-12)


def test_noise_by_devices_adds_up_in_sums_and_not_in_one_update():
  """Of 2 and 5 devices in a block; one took part in both rounds."""
  found = fleet([[1, 1]] * 2 + [[1, 0]] * 3)
  accountant = privacy.Accountant(config('device'), found)
  accountant.add(infos(found, [range(5)] * 2))
  record = accountant.record()
  two = Gaussian(math.sqrt(2))
  assert record['epsilon'] == pytest.approx(by_hand(two, two), rel=1e-12)
  alone = by_hand(Gaussian(1.0), Gaussian(1.0))
  assert record['epsilon_local'] == pytest.approx(alone, rel=1e-12)
  assert accountant.turns.tolist() == [2] * 5


def test_a_server_knows_whom_it_has_drawn():
  """Noise by devices: no draw hides who takes part, in a third of rounds."""
  found = fleet([[1, 1]] * 9)
  accountant = privacy.Accountant(config('device'), found)
  accountant.add(infos(found, [(0, 1, 2), (3, 4, 5), (0, 4, 8)]))
  three = Gaussian(math.sqrt(3))
  want = by_hand(three, three)
  assert accountant.record()['epsilon'] == pytest.approx(want, rel=1e-12)


def test_noise_of_a_device_that_does_not_count_is_in_no_sum():
  """Five train the second block, its two owners count."""
  found = fleet([[1, 1]] * 2 + [[1, 0]] * 3)
  seen = infos(found, [range(5)])
  seen.trained[:] = True  # filled sensors are trained too
  accountant = privacy.Accountant(config('device'), found)
  accountant.add(seen)
  want = by_hand(Gaussian(math.sqrt(2)))
  assert accountant.record()['epsilon'] == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize('noise', ['server', 'device'])
def test_epsilon_goes_on_from_a_snapshot(noise):
  found = fleet([[1, 1]] * 2 + [[1, 0]] * 6)
  whole, first, second = (
    privacy.Accountant(config(noise, 4.0), found) for _ in range(3)
  )
  rounds = [(0, 3, 4), (1, 2, 5), (0, 1, 2)]
  whole.add(infos(found, rounds))
  first.add(infos(found, rounds[:1]))
  second.restore(first.snapshot())
  second.add(infos(found, rounds[1:]))
  assert second.record() == whole.record() != first.record()


def test_without_noise_nothing_is_accounted():
  assert privacy.make(config_lib.default(), fleet([[1]])) is None
  assert privacy.make(config(multiplier=0.0), fleet([[1]])) is None


def test_a_missing_library_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'dp_accounting', None)
  with pytest.raises(InputError, match=r'relief_jax\[privacy\]'):
    privacy.Accountant(config(), fleet([[1]]))


@pytest.mark.parametrize(
  ('keys', 'says'),
  [
    ({'privacy': {'noise': 'off'}}, 'noise_multiplier=2.0 with'),
    ({'hparams': {'clip_norm': 0.0}}, 'clip_norm=0'),
    ({'online': {'presence': {'kind': 'rate'}}}, 'presence.kind'),
    ({'online': {'stream': {'buffer': 4}}}, 'stream.buffer'),
    ({'online': {'pace': {'wait': 2.0}}}, 'pace.wait'),
    ({'privacy': {'delta': 0.0}}, 'delta'),
  ],
)
def test_a_config_that_promises_what_does_not_hold(keys, says):
  validation.validate(config())
  with pytest.raises(InputError, match=says):
    validation.validate(config(**keys))


def small(noise='server', **keys):
  c = config(noise, multiplier=0.5)
  c.dataset, c.clients, c.data.width = 'synthetic', 12, 32
  c.clients_per_round, c.layout = 6, 'one'
  c.rounds, c.rounds_per_call, c.eval_every, c.local_steps = 4, 2, 2, 1
  c.update(keys)
  return c


@pytest.mark.slow
@pytest.mark.parametrize('noise', ['server', 'device'])
def test_a_run_says_what_it_is_worth_and_goes_on(tmp_path, noise):
  """Stopped and resumed: byte for byte the run that never was."""
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  assert runner.run(small(noise), whole) == 'complete'
  assert runner.run(small(noise, rounds=2), parts) == 'complete'
  assert runner.run(small(noise), parts, resume=True) == 'complete'
  found, again = (
    records.read_metrics(folder / 'metrics.jsonl') for folder in (whole, parts)
  )
  for one, other in zip(found, again, strict=True):
    assert one | {'wall_seconds': 0} == other | {'wall_seconds': 0}
  epsilons = [one['epsilon'] for one in found]
  assert epsilons == sorted(epsilons) and epsilons[0] == 0 < epsilons[1]
  assert ('epsilon_local' in found[-1]) == (noise == 'device')
  summary = records.read_json(whole / 'summary.json')
  assert summary['epsilon'] == epsilons[-1] and summary['delta'] == 1e-5
  assert any('small cohorts' in text for text in summary['warnings'])


@pytest.mark.slow
def test_no_noise_is_the_run_without_it():
  quiet = small()
  quiet.hparams.noise_multiplier = 0.0
  plain = small('off')
  plain.hparams.noise_multiplier = 0.0
  one, other = (simulate.run(c).history for c in (quiet, plain))
  for a, b in zip(one, other, strict=True):
    assert 'epsilon' not in a
    assert a | {'wall_seconds': 0} == b | {'wall_seconds': 0}
