"""Draws of local steps, without a round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax.clients import batches
from relief_jax.clients.records import Steps


def real(steps):
  """Numbers of the steps that hold windows."""
  return np.flatnonzero(np.asarray(steps.weight).any(-1)).tolist()


@pytest.mark.parametrize(('count', 'want'), [(0, []), (1, [0]), (3, [0, 3, 6])])
def test_steps_that_fit_are_counted_without_padding(count, want):
  """One batch of windows where the largest client has three, over 3 epochs."""
  row, weight = batches.draw_epochs(
    jax.random.key(0), jnp.arange(12), jnp.int32(4), 3, 4
  )
  steps = Steps(row, weight, jnp.ones((9, 1), bool), None)
  assert real(steps) == [0, 3, 6]
  assert real(batches.cut(steps, jnp.int32(count))) == want


def test_the_first_steps_are_kept():
  row, weight = batches.draw_steps(
    jax.random.key(0), jnp.arange(12), jnp.int32(4), 5, 4
  )
  steps = Steps(row, weight, jnp.ones((5, 1), bool), None)
  assert real(batches.cut(steps, jnp.int32(2))) == [0, 1]
