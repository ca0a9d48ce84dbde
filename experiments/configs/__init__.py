"""Configs, one file each; users' own configs import `common` from here."""

import importlib


def __getattr__(name: str):
  if name == 'common':
    return importlib.import_module('relief_jax.config.presets')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
