"""Means over clients from updates made by hand, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.aggregation.mean import masked_mean, with_sums
from relief_jax.aggregation.robust import robust_mean
from relief_jax.settings import Guard
from tests.support import handmade
from tests.support.handmade import TASK, device, drawn, flat, params, same

COUNT = 5
# Who trains the encoder; the last one counts for it without.
TRAINED = np.array([[1, 1], [1, 1], [0, 1], [1, 1], [0, 1]], bool)
WEIGHT = np.array([[2, 2], [1, 1], [0, 3], [4, 4], [1, 1]], np.float32)


def updates(holds=None):
  """Of five clients, zeros where they train nothing.

  Args:
    holds: P bool by client, elements that they hold; None: whole blocks.
  """
  found = []
  for n, (trained, weight) in enumerate(zip(TRAINED, WEIGHT, strict=True)):
    delta = drawn(n)
    if not trained[0]:
      delta['encoder'] = jax.tree.map(jnp.zeros_like, delta['encoder'])
    held = None if holds is None else holds[n]
    if held is not None:
      delta = jax.tree.map(lambda m, v: jnp.where(m, v, 0.0), held, delta)
    found.append(
      handmade.update(
        delta,
        tuple(np.flatnonzero(trained)),
        weight=jnp.asarray(weight),
        submodel_mask=held,
      )
    )
  return found


def averaged(aggregator, every, weight=WEIGHT, trained=TRAINED):
  """The mean, added up and stacked as the client map does it."""
  parts = [aggregator.client(one, device(weight=one.weight)) for one in every]
  add = functools.partial(jax.tree.map, jnp.add)
  summed = functools.reduce(add, [summed for summed, _ in parts])
  stacked = jax.tree.map(lambda *v: jnp.stack(v), *[one for _, one in parts])
  return aggregator.server(
    summed, stacked, jnp.asarray(weight), jnp.asarray(trained)
  )


def rows(every, block):
  """Updates of a block, [K, numbers] float64."""
  return np.stack([flat(one.delta[block]) for one in every])


def test_a_block_is_averaged_over_everybody_that_counts():
  """The divisor is their weight; variance and norm are the trainers' own."""
  every = updates()
  mean = averaged(masked_mean(TASK), every)
  for g, block in enumerate(('encoder', 'head')):
    u, w = rows(every, block), WEIGHT[:, g].astype(float)
    np.testing.assert_allclose(
      flat(mean.delta[block]), w @ u / w.sum(), rtol=1e-5, atol=1e-7
    )
    w, on = w * TRAINED[:, g], TRAINED[:, g]
    centre = w @ u / w.sum()
    variance = w @ np.square(u - centre).sum(1) / w.sum()
    assert mean.variance[g] == pytest.approx(variance, rel=1e-5)
    assert mean.sq_norm[g] == pytest.approx(centre @ centre, rel=1e-5)
    assert (mean.weight[g], mean.trainers[g]) == (w.sum(), on.sum())
    assert mean.touched[block]
  assert mean.active == COUNT


def test_who_counts_without_training_dilutes():
  every = updates()
  diluted = averaged(masked_mean(TASK), every)
  own = averaged(masked_mean(TASK), every, WEIGHT * TRAINED)
  share = (WEIGHT * TRAINED)[:, 0].sum() / WEIGHT[:, 0].sum()
  np.testing.assert_allclose(
    flat(diluted.delta['encoder']),
    share * flat(own.delta['encoder']),
    rtol=1e-6,
  )
  same(diluted.delta['head'], own.delta['head'])
  same(diluted.variance, own.variance)


def test_a_block_that_nobody_trains_is_not_touched():
  trained = TRAINED & [True, False]
  every = [
    one._replace(delta={**one.delta, 'head': jnp.zeros(4)}) for one in updates()
  ]
  mean = averaged(masked_mean(TASK), every, trained=trained)
  assert not mean.touched['head'] and mean.touched['encoder']
  assert not flat(mean.delta['head']).any()
  assert mean.variance[1] == mean.trainers[1] == mean.weight[1] == 0


def holders(seed=0):
  """Elements that each client holds, within what it trains."""
  rng = np.random.default_rng(seed)
  found = []
  for trained in TRAINED:
    held = params(lambda shape: rng.random(shape) < 0.6)
    found.append(
      {
        'encoder': jax.tree.map(
          lambda v, on=trained[0]: (v > 0) & on, held['encoder']
        ),
        'head': held['head'] > 0,
      }
    )
  return found


@pytest.mark.parametrize('over', ['contributors', 'all'])
def test_parts_of_blocks(over):
  """An element's mean is over who holds it, or over all that count."""
  holds = holders()
  every = updates(holds)
  mean = averaged(masked_mean(TASK, over), every)
  alone = False
  for g, block in enumerate(('encoder', 'head')):
    u, w = rows(every, block), WEIGHT[:, [g]].astype(float)
    held = np.stack([flat(one[block]) for one in holds])
    divisor = (w * held).sum(0) if over == 'contributors' else w.sum()
    total = (w * u).sum(0)
    want = np.divide(total, divisor, out=0 * total, where=divisor > 0)
    np.testing.assert_allclose(
      flat(mean.delta[block]), want, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_array_equal(
      flat(mean.touched[block]), (held * w).sum(0) > 0
    )
    alone |= ((held * w > 0).sum(0) == 1).any()
  assert alone  # an element of one holder is moved by it alone


def test_an_element_that_nobody_holds_is_not_touched():
  holds = holders()
  for one in holds:
    one['head'] = one['head'].at[2].set(False)
  mean = averaged(masked_mean(TASK), updates(holds))
  np.testing.assert_array_equal(mean.touched['head'], [1, 1, 0, 1])
  assert mean.delta['head'][2] == 0


def test_further_sums_leave_the_mean_as_it_is():
  every, plain = updates(), masked_mean(TASK)
  assert not plain.adds
  wider = with_sums(
    plain, lambda update, device: {'loss': update.loss, 'w': device.weight}
  )
  assert wider.adds and wider.over == 'contributors'
  found, want = averaged(wider, every), averaged(plain, every)
  same(found._replace(extra=()), want)
  assert want.extra == ()
  assert found.extra['loss'] == COUNT
  np.testing.assert_array_equal(found.extra['w'], WEIGHT.sum(0))
  assert with_sums(masked_mean(TASK, 'all'), lambda *_: 0.0).over == 'all'
  # Sums of sums: none is lost.
  inner, outer = averaged(
    with_sums(wider, lambda update, device: 2 * update.loss), every
  ).extra
  assert inner['loss'] == COUNT and outer == 2 * COUNT


MEDIAN = robust_mean(TASK, Guard(mean='median'))


def test_a_robust_mean_is_of_those_who_trained_and_count():
  every = updates()
  mean = averaged(MEDIAN, every)
  for g, block in enumerate(('encoder', 'head')):
    voters = TRAINED[:, g] & (WEIGHT[:, g] > 0)
    u = rows(every, block)[voters]
    centre = np.median(u, 0)
    np.testing.assert_allclose(flat(mean.delta[block]), centre, rtol=1e-6)
    far = np.median(np.square(u - centre), 0).sum()
    assert mean.variance[g] == pytest.approx(far, rel=1e-5)
    assert mean.trainers[g] == mean.weight[g] == voters.sum()
  assert not MEDIAN.adds and MEDIAN.over == 'contributors'


def test_every_client_has_one_vote():
  """Whatever its windows; one that counts nowhere has none."""
  every = updates()
  want = averaged(MEDIAN, every)
  same(averaged(MEDIAN, every, 9 * WEIGHT).delta, want.delta)
  weight = WEIGHT.copy()
  weight[1] = 0
  found = averaged(MEDIAN, every, weight)
  rest = rows(every, 'head')[[0, 2, 3, 4]]
  np.testing.assert_allclose(
    flat(found.delta['head']), np.median(rest, 0), rtol=1e-6
  )


def test_a_liar_moves_a_mean_and_no_median():
  every = updates()
  every[3] = every[3]._replace(
    delta=jax.tree.map(lambda v: 1e6 * jnp.ones_like(v), every[3].delta)
  )
  assert flat(averaged(masked_mean(TASK), every).delta).max() > 1e5
  assert np.abs(flat(averaged(MEDIAN, every).delta)).max() < 5


def test_a_robust_mean_of_parts():
  holds = holders()
  every = updates(holds)
  mean = averaged(MEDIAN, every)
  held = np.stack([flat(one['head']) for one in holds]) > 0
  u = rows(every, 'head')
  want = [np.median(u[on, i]) if on.any() else 0 for i, on in enumerate(held.T)]
  np.testing.assert_allclose(flat(mean.delta['head']), want, rtol=1e-6)
  np.testing.assert_array_equal(mean.touched['head'], held.any(0))
