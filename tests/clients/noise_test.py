"""White noise from quantiles has the moments and the tails of a normal."""

import jax
import numpy as np
import pytest
import scipy.stats

from relief_jax.clients import noise


def test_it_is_normal():
  found = np.asarray(noise.normal(jax.random.key(0), (400, 500)), float)
  assert found.shape == (400, 500)
  assert found.mean() == pytest.approx(0, abs=0.01)
  assert found.std() == pytest.approx(1, abs=0.01)
  assert scipy.stats.kstest(found.ravel(), 'norm').pvalue > 0.01
  assert 3.9 < np.abs(found).max() < 4.4
  # White: no sample tells of its neighbours.
  assert abs(np.corrcoef(found[:, :-1].ravel(), found[:, 1:].ravel())[0, 1]) < (
    0.01
  )
