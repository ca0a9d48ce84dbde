"""Describes a run: before it starts, and in its summary."""

from typing import Any

import ml_collections
import numpy as np

from relief_jax.budgets import memory
from relief_jax.online import missing, recovery
from relief_jax.scoring import metrics
from relief_jax.settings import Setting
from relief_jax.task import Task
from relief_jax.world import World, fleets

# Devices of a modality up to which a mean over them reveals single ones: with
# three, two who tell each other theirs know the third. **Ours.**
SMALL = 3
_SCORES = (
  '',
  '_global',
  '_own',
  '_own_rare_owners',
  '_validation',
  '_all',
  '_rare_only',
  '_without_rare',
)


def describe(world: World, task: Task, setting: Setting) -> dict[str, Any]:
  """Lists short facts on clients, data and model.

  Args:
    world: of the run.
    task: the model.
    setting: of a round.
  """
  fleet = world.population.fleet
  owned = np.asarray(fleet.owned)
  least, owners = smallest_cohort(world)
  speed = np.asarray(fleet.speed)
  tier = np.asarray(fleet.tier)
  samples = np.asarray(fleet.samples)
  return {
    'dataset': world.title,
    'subjects': world.subjects,
    'classes': list(world.classes),
    'windows': world.windows,
    'clients': int(owned.shape[0]),
    'clients_per_round': setting.cohort,
    'samples_per_client': [int(samples.min()), int(samples.max())],
    'cohorts': {
      m: int(owned[:, i].sum()) for i, m in enumerate(world.spec.modalities)
    },
    'smallest_cohort': {'modality': least, 'clients': owners},
    'tiers': {t: int((tier == i).sum()) for i, t in enumerate(world.tiers)},
    **({'tier_sources': dict(world.sources)} if world.sources else {}),
    'speed_ratio': float(speed.max() / speed.min()),
    'deadline': [world.deadline, world.deadline_end],
    'parameters': int(np.asarray(task.work.size).sum()),
    'groups': list(task.blocks.name),
    **_memory(world, task, setting),
  }


def _memory(world: World, task: Task, setting: Setting) -> dict[str, Any]:
  """Tells what training all that it owns takes of a device, by tier."""
  if task.memory is None:
    return {}
  fleet, tier = world.population.fleet, np.asarray(world.population.fleet.tier)
  whole = np.ones(task.num_blocks, bool)
  used = memory.every(
    task, setting.memory_step, fleet, setting.fill == 'input', whole
  )
  return {
    'training_mb': {
      name: float(used[tier == t].max() / 1e6)
      for t, name in enumerate(world.tiers)
      if (tier == t).any()
    }
  }


def smallest_cohort(world: World) -> tuple[str, int]:
  """Finds the modality with the fewest devices, and their number.

  See `fleets.rarest`.

  Args:
    world: of the run; devices without data do not count.
  """
  fleet = world.population.fleet
  real = np.asarray(fleet.samples)[:, None] > 0
  owners = (np.asarray(fleet.owned) & real).sum(0)
  least = fleets.rarest(fleet, world.spec.modalities)
  return world.spec.modalities[least], int(owners[least])


def warnings(world: World, whole: bool) -> list[str]:
  """Lists warnings for a reader of the results, a sentence each.

  Args:
    world: of the run.
    whole: a shared model is trained, in every step, with all the sensors that a
      device has.
  """
  found = list(world.notes)
  name, owners = smallest_cohort(world)
  if owners <= SMALL:
    found.append(
      f'smallest cohort: {owners} device(s) own {name!r}. A mean over so few '
      "tells much about each one's data, and a robust mean has nobody to "
      'outvote a liar with'
    )
  fleet = world.population.fleet
  real = np.asarray(fleet.samples) > 0
  count = np.asarray(fleet.owned)[real].sum(-1)
  lacking = int((count < count.max()).sum()) if real.any() else 0
  if whole and lacking:
    found.append(
      f'{lacking} of {len(count)} devices lack sensors that others have, and '
      'no sensor is ever left out in training: what the shared layers learn '
      'from all sensors together tells little where one is missing. Leaving '
      "them out at random raised RELIEF's F1 on DSADS from 58 to 63 % (24 "
      'devices, 30 rounds): set --config.modality_dropout=0.3'
    )
  return found


def outcome(
  config: ml_collections.ConfigDict,
  history: list[dict[str, Any]],
  done: int,
  totals: dict[str, float],
) -> dict[str, Any]:
  """Summarizes the scores and costs of a run so far.

  Args:
    config: of the run.
    history: its evaluations.
    done: rounds.
    totals: simulated costs of these rounds (`round_totals.TOTALS`).
  """
  last = history[-1] if history else {}
  metric = metrics.of(last)
  names = [metric.name + end for end in _SCORES]
  names += [metric.beside.name] if metric.beside else []
  key = metrics.target_key(metric)
  target = config[key]
  scored = [r for r in history if r[metric.name] is not None]  # else not finite
  hits = [r for r in scored if metric.reached(r[metric.name], target)]
  hit = hits[0] if hits else {}
  return {
    'method': config.method,
    'backbone': config.backbone,
    'clients': config.clients,
    'rounds': config.rounds,
    'rounds_done': done,
    'seed': config.seed,
    'last': {k: last.get(k) for k in (*names, 'test_loss')},
    'best': {k: _best(history, k) for k in names},
    key: target,
    'rounds_to_target': hit.get('round'),
    'sim_seconds_per_round': totals['sim_seconds'] / max(done, 1),
    'sim_seconds_total': totals['sim_seconds'],
    'sim_seconds_to_target': hit.get('sim_seconds'),
    'joules_total': totals['joules'],
    'joules_to_target': hit.get('joules'),
    'up_bytes_total': totals['up_bytes'],
    'down_bytes_total': totals['down_bytes'],
    **(
      {'dropped_total': sum(r.get('dropped', 0) for r in history)}
      if config.nonfinite == 'drop'
      else {}
    ),
  }


def _best(history: list[dict[str, Any]], key: str) -> float | None:
  """Finds the best value of a score over the evaluations that have it."""
  known = [r[key] for r in history if r.get(key) is not None]
  return (max if metrics.largest(key) else min)(known, default=None)


def recovered(
  config: ml_collections.ConfigDict, history: list[dict[str, Any]]
) -> dict[str, Any]:
  """Computes `recovery` of a run with a planned outage (online/recovery.py).

  Nothing where there is none, or where evaluations before, during and after it
  are not all there: the run is not past it, or tests more rarely.

  Args:
    config: of the run.
    history: its evaluations.
  """
  text = config.online.missing.outage
  if not text or not config.online.stream.buffer:
    return {}
  _, first, until = missing.parse_outage(text)
  if not all(recovery.parts(history, first, until, 'prequential')):
    return {}
  return {'recovery': recovery.recovery(history, first, until)}


def speed(wall: dict[str, float], done: int, cohort: int) -> dict[str, Any]:
  """Computes the speed of a run from its wall clock.

  Args:
    wall: seconds by stage; rounds are `run`.
    done: rounds.
    cohort: K, clients of a round.
  """
  run = wall['run']
  return {
    'wall_seconds': dict(wall),
    'rounds_per_second': done / run if run else None,
    'clients_per_second': done * cohort / run if run else None,
  }
