"""Configs, and the commands of `relief_jax.cli` as modules of a checkout."""
