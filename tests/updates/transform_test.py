"""Every treatment of an update alone, and in which order they may stand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relief_jax.compressors import Codec, base, make
from relief_jax.settings import Faults, Guard, Setting
from relief_jax.updates import clip, faults, link, stack, transform
from tests.support import handmade
from tests.support.handmade import (
  ENCODER,
  HEAD,
  device,
  drawn,
  flat,
  same,
  update,
)

KEY = jax.random.key(5)
TOP = make(Codec('top_k', share=0.3))
INT2 = make(Codec('int2'))


def applied(piece, found, **facts):
  """The update behind a piece that keeps nothing."""
  after, state = piece.update(
    found, piece.init(found.delta), device(**facts), KEY
  )
  assert jax.tree.leaves(state) == []
  return after


def clipped(found, most):
  hparams = {'clip_norm': jnp.float32(most)}
  return applied(clip.clip_update(), found, hparams=hparams)


# -- Clip ------------------------------------------------------------------


def test_a_long_update_is_scaled_to_the_norm_and_nothing_else_changes():
  found = update(drawn())
  norm = np.linalg.norm(flat(found.delta))
  after = clipped(found, norm / 4)
  np.testing.assert_allclose(
    flat(after.delta), flat(found.delta) / 4, rtol=1e-6
  )
  same(after._replace(delta=()), found._replace(delta=()))


@pytest.mark.parametrize('factor', [1.001, 1e6])
def test_a_short_update_keeps_its_bits(factor):
  found = update(drawn())
  most = factor * np.linalg.norm(flat(found.delta))
  same(clipped(found, most).delta, found.delta)


# -- Drop ------------------------------------------------------------------


@pytest.mark.parametrize(
  'broken',
  [
    {'loss': jnp.float32(np.nan)},
    {'weight': jnp.array([1.0, np.inf])},
    {'delta': handmade.params(lambda shape: np.full(shape, np.nan))},
    {'delta': handmade.params(lambda shape: np.full(shape, np.inf))},
    {'delta': handmade.params(lambda shape: np.full(shape, 1e20))},
  ],
  ids=['loss', 'weight', 'nan', 'inf', 'no norm in float32'],
)
def test_what_is_not_finite_is_marked_and_left_as_it_is(broken):
  found = update(drawn())
  assert bool(applied(clip.mark_nonfinite(), found).finite)
  found = found._replace(**broken)
  after = applied(clip.mark_nonfinite(), found)
  assert not after.finite
  same(after._replace(finite=()), found)


# -- Faults ----------------------------------------------------------------


@pytest.mark.parametrize('kind', ['nan', 'flip', 'noise'])
def test_a_faulty_client_lies_over_what_it_trained(kind):
  delta = drawn()
  delta['head'] = jnp.zeros(4)
  found = update(delta, blocks=(ENCODER,))
  piece = faults.inject_faults(Faults(kind, 3.0))
  same(applied(piece, found, faulty=jnp.float32(0)), found)
  lie = applied(piece, found, faulty=jnp.float32(1))
  same(lie.delta['head'], delta['head'])
  same(lie._replace(delta=()), found._replace(delta=()))
  sent = flat(lie.delta['encoder'])
  if kind == 'nan':
    assert np.isnan(sent).all()
  elif kind == 'flip':
    np.testing.assert_allclose(sent, -3 * flat(delta['encoder']), rtol=1e-6)
  else:
    length = np.linalg.norm(flat(delta))
    assert np.linalg.norm(sent) == pytest.approx(3 * length, rel=1e-5)
    other = applied(piece, found, number=1, faulty=jnp.float32(1))
    assert (flat(other.delta['encoder']) != sent).all()  # its own noise


# -- Codes -----------------------------------------------------------------


def test_only_trained_blocks_arrive_and_in_code():
  found = update(drawn(), blocks=(ENCODER,))
  after = applied(link.coded(INT2), found, number=3)
  key = jax.random.fold_in(jax.random.fold_in(KEY, link.UP), 3)
  want = base.transmit(INT2, key, found.delta)
  same(after.delta['encoder'], want['encoder'])
  assert (flat(want['encoder']) != flat(found.delta['encoder'])).any()
  same(after.delta['head'], jnp.zeros(4))
  same(after._replace(delta=()), found._replace(delta=()))
  other = applied(link.coded(INT2), found, number=4)
  assert (flat(other.delta) != flat(after.delta)).any()  # its own rounding


def test_what_did_not_arrive_arrives_later():
  """sum of sent + residual = sum of updates, block by block."""
  piece = link.error_feedback(link.coded(TOP))
  residual = piece.init(handmade.params())
  same(residual, handmade.params())
  sent = total = handmade.params()
  for number in range(6):
    found = update(drawn(number))
    after, residual = piece.update(found, residual, device(), KEY)
    whole = flat(found.delta) + flat(total) - flat(sent)
    assert np.count_nonzero(flat(after.delta)) < len(whole)
    total = jax.tree.map(jnp.add, total, found.delta)
    sent = jax.tree.map(jnp.add, sent, after.delta)
    np.testing.assert_allclose(
      flat(sent) + flat(residual), flat(total), rtol=0, atol=1e-5
    )
  # Nothing waits for ever: the largest of what is left is what is sent.
  assert np.abs(flat(residual)).max() < np.abs(flat(total)).max()


def test_of_a_block_at_rest_nothing_is_sent_and_nothing_forgotten():
  piece, before = link.error_feedback(link.coded(TOP)), drawn(9)
  delta = drawn(1)
  delta['head'] = jnp.zeros(4)
  after, residual = piece.update(
    update(delta, blocks=(ENCODER,)), before, device(), KEY
  )
  same(after.delta['head'], jnp.zeros(4))
  same(residual['head'], before['head'])
  assert (flat(residual['encoder']) != flat(before['encoder'])).any()


def test_a_code_that_loses_nothing_leaves_nothing():
  piece = link.error_feedback(link.coded(make(Codec('none'))))
  found = update(drawn())
  after, residual = piece.update(found, handmade.params(), device(), KEY)
  same(after.delta, found.delta)
  same(residual, handmade.params())


# -- Order -----------------------------------------------------------------


def counting(factor):
  """Scales an update and counts how often."""

  def change(found, state, device, key):
    delta = jax.tree.map(lambda v: factor * v, found.delta)
    return found._replace(delta=delta), state + 1

  return transform.Transform(lambda params: jnp.int32(10 * factor), change)


def test_a_chain_goes_from_left_to_right_and_every_part_has_its_state():
  chain = transform.chain(counting(2), clip.mark_nonfinite(), counting(3))
  found = update(drawn())
  states = chain.init(found.delta)
  same(states, (20, (), 30))
  for turn in (1, 2):
    after, states = chain.update(found, states, device(), KEY)
    same(states, (20 + turn, (), 30 + turn))
  np.testing.assert_allclose(
    flat(after.delta), 6 * flat(found.delta), rtol=1e-6
  )
  assert after.finite
  with pytest.raises(ValueError, match='shorter'):
    chain.update(found, states[:2], device(), KEY)


def test_nothing_to_do_is_nothing_kept():
  chain = transform.chain()
  assert chain.init(drawn()) == ()
  found = update(drawn())
  assert chain.update(found, (), device(), KEY) == (found, ())


def in_order(found, *pieces):
  chain = transform.chain(*pieces)
  facts = device(hparams={'clip_norm': jnp.float32(0.5)})
  return chain.update(found, chain.init(found.delta), facts, KEY)[0]


def test_clip_and_code_do_not_commute():
  """A code behind a clip may be longer again: it must stand last."""
  found, code = update(drawn()), link.coded(INT2)
  right = in_order(found, clip.clip_update(), code)
  wrong = in_order(found, code, clip.clip_update())
  assert np.abs(flat(right.delta) - flat(wrong.delta)).max() > 1e-3
  # The reason for the order: what arrives is a code, of few values.
  for array in jax.tree.leaves(right.delta):
    assert len(np.unique(np.abs(array))) <= 2


def test_clip_and_feedback_do_not_commute():
  """What a clip cuts off is gone; what a code leaves out comes later."""
  piece = link.error_feedback(link.coded(TOP))
  facts = device(hparams={'clip_norm': jnp.float32(0.5)})
  found = update(drawn())
  left = []
  for pieces in ((clip.clip_update(), piece), (piece, clip.clip_update())):
    chain = transform.chain(*pieces)
    states = chain.init(found.delta)
    left.append(chain.update(found, states, facts, KEY)[1][pieces.index(piece)])
  assert np.linalg.norm(flat(left[0])) < 0.5 < np.linalg.norm(flat(left[1]))


@pytest.mark.parametrize('value', [None, np.nan, np.inf, -np.inf])
def test_mark_and_clip_commute_where_there_is_a_norm(value):
  delta = drawn()
  if value is not None:
    delta['head'] = delta['head'].at[1].set(value)
  found = update(delta)
  one = in_order(found, clip.mark_nonfinite(), clip.clip_update())
  other = in_order(found, clip.clip_update(), clip.mark_nonfinite())
  same(one, other)
  assert bool(one.finite) == (value is None)


def test_a_clip_hides_an_update_too_large_for_a_norm():
  """Why the mark stands first: behind the clip it would be all zeros."""
  found = update(handmade.params(lambda shape: np.full(shape, 1e20)))
  first = in_order(found, clip.mark_nonfinite(), clip.clip_update())
  last = in_order(found, clip.clip_update(), clip.mark_nonfinite())
  assert not first.finite and last.finite
  assert not flat(last.delta).any()


def test_faults_come_before_everything_that_is_to_find_them():
  piece = faults.inject_faults(Faults('nan'))
  found = update(drawn())
  for pieces, seen in (
    ((piece, clip.mark_nonfinite()), True),
    ((clip.mark_nonfinite(), piece), False),
  ):
    chain = transform.chain(*pieces)
    facts = device(faulty=jnp.float32(1))
    after, _ = chain.update(found, chain.init(found.delta), facts, KEY)
    assert bool(after.finite) != seen


# -- The stack of a run ----------------------------------------------------


def test_a_run_without_treatments_has_an_empty_stack():
  setting = Setting()
  chain = stack.stack(setting, link.make(setting))
  assert chain.init(drawn()) == ()


def test_a_run_has_all_that_it_asks_for_in_the_only_order():
  codec = Codec('top_k', share=0.3)
  setting = Setting(
    guard=Guard(drop=True, clip=True, faults=Faults('flip', 2.0)),
    uplink_codec=codec,
  )
  links = link.make(setting)
  assert links.feedback
  found = update(drawn())
  facts = device(faulty=jnp.float32(1), hparams={'clip_norm': jnp.float32(0.5)})
  mine = transform.chain(
    faults.inject_faults(setting.guard.faults),
    clip.mark_nonfinite(),
    clip.clip_update(),
    link.error_feedback(link.coded(TOP)),
  )
  results = []
  for chain in (stack.stack(setting, links), mine):
    states = chain.init(found.delta)
    results.append(chain.update(found, states, facts, KEY))
  same(*results)
  after, states = results[0]
  assert after.finite and len(states) == 4
  assert optax.tree.norm(after.delta) <= 0.5 * (1 + 1e-6)
  assert (flat(after.delta) * flat(found.delta) <= 0).all()  # flipped


def test_a_code_without_a_memory_keeps_nothing():
  setting = Setting(uplink_codec=Codec('int8'))
  chain = stack.stack(setting, link.make(setting))
  assert jax.tree.leaves(chain.init(drawn())) == []
  after, _ = chain.update(update(drawn()), ((),), device(), KEY)
  assert (flat(after.delta) != flat(drawn())).any()


def test_blocks_at_rest_stay_zero_through_the_whole_stack():
  setting = Setting(
    guard=Guard(drop=True, clip=True, faults=Faults('noise', 2.0)),
    uplink_codec=Codec('int8'),
  )
  chain = stack.stack(setting, link.make(setting))
  delta = drawn()
  delta['encoder'] = jax.tree.map(jnp.zeros_like, delta['encoder'])
  facts = device(faulty=jnp.float32(1), hparams={'clip_norm': jnp.float32(0.5)})
  found = update(delta, blocks=(HEAD,))
  after, _ = chain.update(found, chain.init(delta), facts, KEY)
  assert not flat(after.delta['encoder']).any()
  assert flat(after.delta['head']).any()
