"""Budget rules: which groups fit a device's budget, for one client."""

from relief_jax.budgets.greedy import greedy
from relief_jax.budgets.knapsack import knapsack

BUDGETS = {'greedy': greedy, 'knapsack': knapsack}
