"""Runs several methods and seeds side by side: `relief compare`."""

from relief_jax.cli import main

if __name__ == '__main__':
  main.start('compare')
