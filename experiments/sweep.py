"""Runs many points of one config and sets them side by side: `relief sweep`."""

from relief_jax.cli import main

if __name__ == '__main__':
  main.start('sweep')
