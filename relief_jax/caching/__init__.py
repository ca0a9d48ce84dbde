"""Plans which experts edge servers keep, so that tokens wait least.

A solver for a problem related to that of https://arxiv.org/abs/2507.06567
(reconstruction, from its abstract), fed with the routes of a trained mixture:

    problem = caching.of_routes(routes, near, far, size, capacity)
    placed = caching.successive(problem)
    caching.latency(problem, placed)

Nothing is trained here, and nothing of JAX is used.
"""

from relief_jax.caching.convolution import max_convolution
from relief_jax.caching.curve import SOLVERS, curve
from relief_jax.caching.dynamic import successive
from relief_jax.caching.exhaustive import exhaustive
from relief_jax.caching.greedy import enumerated, greedy
from relief_jax.caching.problem import Problem, latency, of_routes, saving

__all__ = [
  'SOLVERS',
  'Problem',
  'curve',
  'enumerated',
  'exhaustive',
  'greedy',
  'latency',
  'max_convolution',
  'of_routes',
  'saving',
  'successive',
]
