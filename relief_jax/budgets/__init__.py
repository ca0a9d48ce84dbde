"""Chooses the groups that fit a device's budget, for one client."""

from relief_jax.budgets import greedy, knapsack

BUDGETS = {'greedy': greedy.greedy, 'knapsack': knapsack.knapsack}
