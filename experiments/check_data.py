"""Describes a file of your own data: `relief check-data`."""

from relief_jax.cli import main

if __name__ == '__main__':
  main.start('check-data')
