"""Prepares a run before its first round: layout, places, first state."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import jax
import ml_collections
import numpy as np

from relief_jax import tree
from relief_jax.engine import memory, placement, processes
from relief_jax.engine.placement import Layout
from relief_jax.errors import InputError
from relief_jax.rounds import similarity
from relief_jax.rounds.records import Algorithm
from relief_jax.runs import program, tuner
from relief_jax.task import Task
from relief_jax.types import Array, Population, PyTree
from relief_jax.world import World

# Compiled initial states, one per static configuration.
_starts: dict[Hashable, Callable[..., PyTree]] = {}


def clear() -> None:
  """Forgets compiled initial states."""
  _starts.clear()


def settle_layout(
  config: ml_collections.ConfigDict,
  found: World,
  task: Task,
  layout: Layout,
  memory_limit: int | None,
) -> tuple[tuner.Choice, Layout, World]:
  """Chooses the layout where a config leaves it open, and sets it.

  Args:
    config: of the run; its `layout` is set.
    found: the world, its rows placed as `layout` says.
    task: the model.
    layout: by the rule of thumb.
    memory_limit: bytes that the run may take, None for the machine's.

  Returns:
    The choice and its reason, the layout, and the world placed by it.
  """
  if config.layout not in placement.OPEN:
    return tuner.Choice(config.layout, 'config'), layout, found
  choice = tuner.settle(
    config.layout,
    tuner.Job(
      method=config.method,
      backbone=config.backbone,
      spec=found.spec,
      task=task,
      setting=program.setting(config, found, layout),
      hparams=program.hparams(config, found),
      population=found.population,
      memory_limit=memory_limit,
    ),
  )
  config.layout = choice.name
  chosen = placement.parse_layout(choice.name, config.devices)
  if chosen.mesh != layout.mesh:  # in one process only
    population = found.population
    rows = np.asarray(population.rows)[: len(population.fleet.id)]
    moved = placement.shard_rows(
      lambda first, last: rows[first:last], rows.shape, chosen
    )
    population = dataclasses.replace(population, rows=moved)
    found = found._replace(population=population)
  return choice, chosen, found


def place_population(population: Population, layout: Layout) -> Population:
  """Replicates all but the clients' rows, which are in place already."""
  nothing: Any = None
  rest = placement.replicate(
    dataclasses.replace(population, rows=nothing), layout
  )
  return dataclasses.replace(rest, rows=population.rows)


def initial_state(
  identity: Hashable,
  algorithm: Algorithm,
  task: Task,
  key: Array,
  memory_limit: int | None,
) -> PyTree:
  """Makes the state before the first round.

  Args:
    identity: equal where the same program makes it.
    algorithm: of the run.
    task: the model.
    key: of the parameters.
    memory_limit: bytes that the run may take, None for the machine's.

  Raises:
    InputError: it does not fit into memory.
    PeerError: nor does another process's.
  """
  if identity not in _starts:
    _starts[identity] = jax.jit(lambda k: algorithm.init(k, task.init(k)))
  need = memory.size(jax.eval_shape(_starts[identity], key))
  with processes.together():
    memory.check(
      memory.estimate(need, 0, memory_limit),
      'lower --config.clients where every client keeps a model, momentum or '
      'an error feedback of its own (--config.keep_client_state, '
      '--config.uplink_codec.error_feedback), make the model smaller, or take '
      'a larger machine',
    )
  return _starts[identity](key)


def base(algorithm: Algorithm, state: PyTree, population: Population) -> PyTree:
  """Gives the frozen parameters, with what the server merged into them.

  Args:
    algorithm: of the run.
    state: as it is now.
    population: of the run.

  Returns:
    On this process's devices.
  """
  frozen = placement.local(population.frozen)
  if algorithm.frozen is None:
    return frozen
  return algorithm.frozen(placement.local(state), frozen)


def check_round(
  config: ml_collections.ConfigDict, algorithm: Algorithm, args: tuple
) -> None:
  """Refuses what only a traced round shows.

  Args:
    config: of the run.
    algorithm: of the run.
    args: of a round.

  Raises:
    InputError: `config.update_similarity` of rounds that show no updates, or
      noise that does not hide a device (rounds/privacy.py).
    PeerError: in another process of the run.
  """
  if config.update_similarity or config.privacy.noise != 'off':
    with processes.together():
      _, info = jax.eval_shape(algorithm.step, *args)
      if config.update_similarity:
        similarity.check(info, config.method)


def estimate_memory(
  arrays: int, program: int, limit: int | None
) -> memory.Estimate:
  """Estimates the memory of a compiled run, and refuses what is too much.

  Args:
    arrays: bytes beside the program.
    program: bytes of it.
    limit: bytes that the run may take, None for the machine's.

  Raises:
    InputError: more than there is.
    PeerError: in another process of the run.
  """
  found = memory.estimate(arrays, program, limit)
  with processes.together():
    memory.check(
      found,
      'take fewer clients a round (--config.clients_per_round), smaller '
      'blocks of them (--config.layout=block:8, one), fewer '
      '--config.devices, or a machine with more memory',
    )
  return found


def broken_group(task: Task, params: PyTree) -> str:
  """Names the first group with a non-finite parameter, or gives ''.

  Args:
    task: the model.
    params: P, or [N, *P].
  """
  broken = jax.tree.map(lambda v: float(~np.isfinite(v).all()), params)
  found = np.asarray(tree.group_sum(task.groups, broken, task.num_blocks))
  return task.blocks.name[found.argmax()] if found.any() else ''


def check_finite(task: Task, params: PyTree) -> None:
  """Refuses a model that starts with numbers that are not finite.

  Args:
    task: the model.
    params: P, or [N, *P].

  Raises:
    InputError: such a model.
  """
  name = broken_group(task, params)
  if name:
    raise InputError(
      f'first parameters of the block {name!r} that are not finite',
      'numbers to start from',
      'mend the initializer, or try another --config.seed',
    )
