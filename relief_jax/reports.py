"""What a run says of itself: before it starts, and in its summary."""

from typing import Any

import ml_collections
import numpy as np

from relief_jax.online import missing, recovery
from relief_jax.types import Task
from relief_jax.world import World

# Devices of a modality up to which a mean over them reveals single ones: with
# three, two who tell each other theirs know the third. **Ours.**
SMALL = 3
_SCORES = (
  'f1',
  'f1_all',
  'f1_rare_owners',
  'f1_rare_only',
  'f1_without_rare',
  'accuracy',
)


def describe(world: World, task: Task, cohort: int) -> dict[str, Any]:
  """Short facts on clients, data and model.

  Args:
    world: of the run.
    task: the model.
    cohort: K, clients of a round.
  """
  fleet = world.population.fleet
  owned = np.asarray(fleet.owned)
  least, owners = smallest_cohort(world)
  speed = np.asarray(fleet.speed)
  tier = np.asarray(fleet.tier)
  samples = np.asarray(fleet.samples)
  return {
    'dataset': world.dataset,
    'subjects': world.subjects,
    'windows': {
      'train': len(world.population.bank.y),
      'test': len(world.test.y),
    },
    'clients': int(owned.shape[0]),
    'clients_per_round': cohort,
    'samples_per_client': [int(samples.min()), int(samples.max())],
    'cohorts': {
      m: int(owned[:, i].sum()) for i, m in enumerate(world.spec.modalities)
    },
    'smallest_cohort': {'modality': least, 'clients': owners},
    'tiers': {t: int((tier == i).sum()) for i, t in enumerate(world.tiers)},
    'speed_ratio': float(speed.max() / speed.min()),
    'deadline': [world.deadline, world.deadline_end],
    'parameters': int(np.asarray(task.work.size).sum()),
    'groups': list(task.group_names),
  }


def smallest_cohort(world: World) -> tuple[str, int]:
  """The modality with the fewest devices, and their number.

  Args:
    world: of the run; devices without data do not count.
  """
  fleet = world.population.fleet
  real = np.asarray(fleet.samples)[:, None] > 0
  owners = (np.asarray(fleet.owned) & real).sum(0)
  least = int(owners.argmin())
  return world.spec.modalities[least], int(owners[least])


def warnings(world: World) -> list[str]:
  """What a reader of the results should know, a sentence each.

  Args:
    world: of the run.
  """
  name, owners = smallest_cohort(world)
  found = list(world.notes)
  if owners <= SMALL:
    found.append(
      f'smallest cohort: {owners} device(s) own {name!r}. A mean over so few '
      "tells much about each one's data, and a robust mean has nobody to "
      'outvote a liar with'
    )
  return found


def outcome(
  config: ml_collections.ConfigDict,
  history: list[dict[str, Any]],
  done: int,
  totals: dict[str, float],
) -> dict[str, Any]:
  """What came out of a run so far.

  Args:
    config: of the run.
    history: its evaluations.
    done: rounds.
    totals: simulated costs of these rounds (`tally.TOTALS`).
  """
  last = history[-1] if history else {}
  reached = [r for r in history if r['f1'] >= config.target_f1]
  hit = reached[0] if reached else {}
  return {
    'method': config.method,
    'dataset': config.dataset,
    'backbone': config.backbone,
    'clients': config.clients,
    'rounds': config.rounds,
    'rounds_done': done,
    'seed': config.seed,
    'last': {k: last.get(k) for k in _SCORES},
    'best': {k: max((r[k] for r in history), default=None) for k in _SCORES},
    'target_f1': config.target_f1,
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


def recovered(
  config: ml_collections.ConfigDict, history: list[dict[str, Any]]
) -> dict[str, Any]:
  """`recovery` of a run with a planned outage (online/recovery.py).

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
  """Wall clock of a run.

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
