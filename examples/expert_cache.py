"""Which experts should an edge server keep? By the routes of a trained mixture.

    python examples/expert_cache.py DIR

FedAvg trains a mixture of eight experts on DSADS for some rounds, on twelve
devices. Then every person is a user whose windows ask for the experts that the
gate sends them to, and one server near all of them keeps as many as fit
(relief_jax/caching). Prints the mean wait of a window in
milliseconds against the size of a cache, by solver.
"""

import sys

import numpy as np

from relief_jax import caching, config, datasets, simulate

ROUNDS = 20
NEAR, FAR = 0.02, 0.4  # seconds


def trained(folder: str):
  """Gives the model and its config."""
  c = config.default('fedavg')
  c.dataset, c.clients, c.rounds, c.fill = 'dsads', 12, ROUNDS, 'skip'
  c.eval_every = c.rounds_per_call = ROUNDS
  c.model.fusion, c.model.hidden, c.model.filters = 'experts', 64, (8, 16)
  c.devices = 1
  return simulate.run(c, folder).model, c


def main(folder: str) -> None:
  """Trains, plans, prints."""
  model, c = trained(folder)
  data, _ = datasets.load(c, folder)
  persons = np.unique(data.subject)
  routes = []
  for person in persons:
    those = data.subject == person
    routes.append(model.routes({m: x[those] for m, x in data.x.items()}))
  users, count = len(persons), routes[0].shape[1]
  problem = caching.of_routes(
    routes, [[NEAR]] * users, [FAR] * users, [1] * count, [0]
  )
  sizes = range(count + 1)
  print('experts kept', *sizes)
  for name, waits in caching.curve(problem, sizes).items():
    print(name, *(f'{1e3 * wait:.0f}' for wait in waits))


if __name__ == '__main__':
  main(sys.argv[1])
