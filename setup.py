"""Installs `relief_jax`, with the configs of a checkout as its own."""

import setuptools

setuptools.setup(
  packages=[
    *setuptools.find_packages(include=['relief_jax', 'relief_jax.*']),
    'relief_jax.configs',
  ],
  package_dir={'relief_jax.configs': 'experiments/configs'},
)
