"""Shows the clients of a config before anything trains: `relief inspect`."""

from relief_jax.cli import main

if __name__ == '__main__':
  main.start('inspect')
