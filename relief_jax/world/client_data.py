"""Partitions data, sensors and devices over clients, on the host (**ours**).

Everything random comes from (seed, purpose), so that two methods with one
seed meet the same clients, the same tiers and the same frozen base.
"""

import dataclasses
import functools
import json
from typing import NamedTuple

import ml_collections
import numpy as np

from relief_jax import datasets
from relief_jax.clients import sensor_faults
from relief_jax.config import validation
from relief_jax.datasets.windows import Windows
from relief_jax.engine import ambient
from relief_jax.types import Fleet
from relief_jax.world import (
  base,
  fleets,
  own_windows,
  partition,
  quantity,
  splits,
)

_PARTITION, _FLEET, _SPLIT, BASE, _SHIFT, ONLINE = range(6)


class Clients(NamedTuple):
  """Holds the windows and sensors of every client, before any scaling.

  Attributes:
    data: every window, in physical units.
    dataset: name, `auto` resolved.
    split: rows of train, test and public windows.
    parts: N arrays of training rows.
    fleet: the devices, without budgets.
    own: N arrays of rows that the devices are tested on themselves.
  """

  data: Windows
  dataset: str
  split: partition.Split
  parts: list[np.ndarray]
  fleet: Fleet
  own: list[np.ndarray]


@ambient.pinned()
def build_clients(
  config: ml_collections.ConfigDict, data_dir: str | None
) -> Clients:
  """Loads the data, splits it and partitions it over the clients (seconds).

  Args:
    config: of the run.
    data_dir: folder of the data sets, None to search.

  Raises:
    InputError: whatever is wrong with the config, the data or the fleet.
  """
  validation.validate(config)
  fleets.find(config.fleet)
  data, dataset = _load(config, data_dir)
  split = splits.split(
    data,
    config.data,
    config.data.public_subjects if base.pretrains(config) else 0,
    _rng(config, _SPLIT),
  )
  data = data._replace(
    notes=data.notes + splits.notes(data, split, config.data.split)
  )
  split = own_windows.hold_back(data, split, config.data.own_share)
  parts = _parts(config, data, split.train)
  fleet = fleets.build(
    config.fleet,
    config.clients,
    tuple(data.x),
    np.array([len(part) for part in parts]),
    _rng(config, _FLEET),
    config.fleet_coupling,
    config.fleet_spread,
  )
  drawn = sensor_faults.draw(
    config.sensor_faults, config.clients, len(data.x), _rng(config, _SHIFT)
  )
  fleet = dataclasses.replace(fleet, shift=drawn)
  own = own_windows.deal(data, parts, split.own)
  return Clients(data, dataset, split, parts, fleet, own)


def _parts(config, data, train) -> list[np.ndarray]:
  """Gives the training windows of every client."""
  rng = _rng(config, _PARTITION)

  def lap(clients):
    return partition.assign(
      config.partition,
      data,
      train,
      clients,
      rng,
      config.alpha,
      config.min_windows,
      config.quantity_skew,
    )

  if not config.reuse:
    return lap(config.clients)
  return quantity.reuse_windows(lap, config.clients, len(train), config.reuse)


def _rng(config, purpose):
  return np.random.default_rng([config.seed, purpose])


def _load(config, data_dir):
  """Loads the windows; the last few data sets stay in memory for sweeps."""
  keys = ('dataset', 'data_path', 'data', 'synthetic')
  relevant = {k: config[k] for k in keys}
  relevant['stamp'] = datasets.stamp(config, data_dir)
  seed = (
    config.seed
    if config.dataset in ('synthetic', 'synthetic_text', 'auto')
    else 0
  )
  return _load_cached(
    json.dumps({k: _plain(v) for k, v in relevant.items()}, sort_keys=True),
    seed,
    data_dir,
  )


def _plain(value):
  return (
    value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value
  )


@functools.lru_cache(maxsize=2)
def _load_cached(text, seed, data_dir):
  config = ml_collections.ConfigDict(json.loads(text))
  config.seed = seed
  return datasets.load(config, data_dir)
