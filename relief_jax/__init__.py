"""Simulates federated learning on heterogeneous multimodal devices, in JAX."""

from relief_jax import config as config
from relief_jax import simulate as simulate

__version__ = '0.1.0'
