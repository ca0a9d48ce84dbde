import importlib.util

# Other simulators' environments import from here too, and have no JAX.
if importlib.util.find_spec('jax'):
  from relief_jax.engine import ambient

  ambient.pin_process()
