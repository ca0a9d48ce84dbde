"""Byzantine clients: what they send, and who they are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relief_jax.settings import Faults
from relief_jax.updates import clip, faults
from tests.support import tiny
from tests.support.handmade import same

CLIENTS, PADDING = 7, 5


@pytest.mark.parametrize('kind', ['nan', 'flip', 'noise'])
def test_lies(kind):
  """Over what was trained, of the length that was asked for."""
  delta = {'w': jnp.array([3.0, 0.0, 4.0]), 'b': jnp.ones(2)}
  mask = {'w': jnp.array([True, False, True]), 'b': jnp.array(False)}
  delta = jax.tree.map(lambda u, m: jnp.where(m, u, 0.0), delta, mask)

  def sent(faulty, client=0):
    return faults.tampered(
      Faults(kind, 2.0),
      jax.random.key(0),
      jnp.int32(client),
      jnp.float32(faulty),
      mask,
      delta,
    )

  same(sent(0), delta)
  lie = sent(1)
  np.testing.assert_array_equal(lie['b'], delta['b'])
  assert lie['w'][1] == 0
  if kind == 'nan':
    assert jnp.isnan(lie['w'][::2]).all()
    assert not clip.finite(lie) and clip.finite(delta)
  elif kind == 'flip':
    np.testing.assert_array_equal(lie['w'], -2 * delta['w'])
  else:
    assert optax.tree.norm(lie) == pytest.approx(10.0)
    assert not np.array_equal(lie['w'], sent(1, client=1)['w'])


def test_liars_are_drawn_from_the_seed():
  population = tiny.population(
    tiny.task(), CLIENTS, samples=[9, 6, 8, 7, 5, 0, 6]
  )
  c = tiny.config(clients=CLIENTS)
  assert faults.draw(c, population.fleet) == {}
  seen = set()
  for share, count in ((0.3, 2), (0.5, 3), (1.0, 6)):
    for seed in range(8):
      c.faults.share, c.seed = share, seed
      drawn = np.asarray(faults.draw(c, population.fleet)['faulty'])
      assert drawn.sum() == count and not drawn[PADDING]
      np.testing.assert_array_equal(
        drawn, faults.draw(c, population.fleet)['faulty']
      )
      seen.add(tuple(drawn))
  assert len(seen) > 8
