"""Runs one experiment and leaves a run directory: `relief run`."""

from relief_jax.cli import main

if __name__ == '__main__':
  main.start('run')
