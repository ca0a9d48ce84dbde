"""How much do the planners of an expert cache differ? Drawn, not trained.

    python examples/expert_cache_curves.py docs/expert_cache.png

Draws the mean wait of a token against the memory of a server, by solver
(relief_jax/caching), on three drawn problems that can all be tried through:
one server and one expert a token, one server and two, three servers and two.
Popularity falls as 1 / rank (Zipf), experts take one to three units, an expert
comes in 20 ms from a server nearby, in 60 ms from the one of a neighbour and in
400 ms from afar. No seed was chosen for what it shows: all are 0.
"""

import pathlib
import sys

import numpy as np

from relief_jax import caching
from relief_jax.report import palette

NEAR, NEXT, FAR = 0.02, 0.06, 0.4  # seconds
USERS = 6
# Title of a panel: servers, experts, experts a token.
PANELS = {
  'one server, k = 1': (1, 8, 1),
  'one server, k = 2': (1, 8, 2),
  'three servers, k = 2': (3, 5, 2),
}
NAMES = {
  'greedy': 'greedy, by saving per unit',
  'enumerated': 'best of all starts of three, then greedy',
  'successive': 'server by server, dynamic programming',
  'exhaustive': 'all placements tried',
}


def problem(servers: int, experts: int, together: int, seed: int = 0):
  """Draws users whose tokens need `together` experts at once.

  Args:
    servers: S; a user has one nearby and reaches those beside it.
    experts: E.
    together: K.
    seed: of the draw.
  """
  rng = np.random.default_rng(seed)
  sets = np.array([rng.permutation(experts)[:together] for _ in range(20)])
  popular = 1.0 / np.arange(1, len(sets) + 1)
  rate = np.stack([rng.permutation(popular) for _ in range(USERS)])
  # All have much of their taste in common.
  rate = 0.3 * rate + 0.7 * popular
  home = np.arange(USERS) % servers
  near = np.where(np.arange(servers)[None] == home[:, None], NEAR, NEXT)
  size = rng.integers(1, 4, experts)
  return caching.Problem(
    sets, rate, near, [FAR] * USERS, size, [0] * servers
  ).checked()


def main(path: str, panels=PANELS) -> None:
  """Solves all problems and draws their curves.

  Args:
    path: of the PNG.
    panels: title -> sizes of a problem.
  """
  made, every = palette.subplots(
    1, len(panels), figsize=(7.2, 3.3), sharey=True, squeeze=False
  )
  lines = {}
  for axes, (title, sizes) in zip(every[0], panels.items(), strict=True):
    one = problem(*sizes)
    capacity = list(range(int(one.size.sum()) + 1))
    found = caching.curve(one, capacity)
    # The oracle first, below the others: who reaches it hides it.
    for name in ('exhaustive', 'greedy', 'enumerated', 'successive'):
      waits = 1e3 * np.array(found[name])
      if np.isnan(waits).all():  # one cache only
        continue
      look = palette.style(list(NAMES).index(name) + 1)
      if name == 'exhaustive':
        look = {**palette.style(0), 'linewidth': 4, 'alpha': 0.3, 'marker': ''}
      if name == 'enumerated':  # around those that reach the same
        look |= {'markersize': 9, 'markerfacecolor': 'none'}
      (lines[name],) = axes.plot(capacity, waits, **look)
    axes.set_title(title, fontsize=9)
    axes.set_ylim(0, 1.05e3 * FAR)
    axes.tick_params(labelsize=8)
    palette.tidy(axes)
  every[0][len(panels) // 2].set_xlabel('memory of a server, units', fontsize=9)
  every[0][0].set_ylabel('mean wait of a token, ms', fontsize=9)
  shown = [name for name in NAMES if name in lines]
  made.legend(
    [lines[name] for name in shown],
    [NAMES[name] for name in shown],
    loc='outside lower center',
    ncols=2,
    fontsize=8,
    frameon=False,
  )
  made.savefig(pathlib.Path(path), dpi=110)


if __name__ == '__main__':
  main(sys.argv[1])
