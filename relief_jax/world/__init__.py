"""The world of a run: data, clients, fleet and frozen base."""

from relief_jax.world.base import cache_features as cache_features
from relief_jax.world.base import pretrain as pretrain
from relief_jax.world.builder import Inputs as Inputs
from relief_jax.world.builder import World as World
from relief_jax.world.builder import build as build
