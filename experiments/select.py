"""Chooses the best values of every label of a sweep: `relief select`."""

from relief_jax.cli import main

if __name__ == '__main__':
  main.start('select')
