"""Measures how fast this machine trains: `relief profile-device`."""

from relief_jax.cli import main

if __name__ == '__main__':
  main.start('profile-device')
