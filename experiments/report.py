"""Makes the report of runs: `relief report`."""

from relief_jax.cli import main

if __name__ == '__main__':
  main.start('report')
