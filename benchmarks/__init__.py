from relief_jax.engine import ambient

ambient.pin_process()
