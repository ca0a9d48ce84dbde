"""Makes the tables and heat maps of a robustness grid: `relief robustness`."""

from relief_jax.cli import main

if __name__ == '__main__':
  main.start('robustness')
