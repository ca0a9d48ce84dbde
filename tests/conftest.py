"""Before JAX starts: CPU only, eight virtual devices, strict broadcasting."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'

import jax  # noqa: E402
from hypothesis import settings  # noqa: E402

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
# A [f] bias added to [B, f] is a bug waiting for B == f.
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Programs here are tiny and run once: halves the time of their compilation.
jax.config.update('jax_disable_most_optimizations', True)

# The same examples in every run; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile('steady', derandomize=True, database=None)
settings.register_profile('explore', derandomize=False)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'steady'))
