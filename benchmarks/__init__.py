from relief_jax import ambient

ambient.pin_process()
