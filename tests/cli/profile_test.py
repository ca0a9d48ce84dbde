"""Measuring a machine: the fit, the file, and that a fleet takes it."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relief_jax import costs, tree
from relief_jax.devices import DEVICES, figures
from relief_jax.runs import step_times
from relief_jax.task import Plan
from relief_jax.world import fleets
from tests.support import tiny

LIKE = ('jetson_nano', DEVICES['jetson_nano'])


def points(seconds):
  """Every case of the tiny model, timed by `seconds(flops [3])`."""
  config = tiny.config()
  task, _ = step_times._model(config)
  flops = {
    name: config.batch * np.array(step_times.step_flops(task.work, *case))
    for name, case in step_times.cases(task).items()
  }
  found = step_times.measure(
    config, 2, lambda calls: {name: seconds(flops[name]) for name in calls}
  )
  assert [p.name for p in found] == list(flops)
  return task, config, found


def test_flops_by_phase_add_up():
  task = tiny.task()
  for run, train in step_times.cases(task).values():
    whole = costs.step_flops(task.work, jnp.asarray(run), jnp.asarray(train))
    parts = step_times.step_flops(task.work, run, train)
    assert sum(parts) == pytest.approx(float(whole), rel=1e-6)


def test_the_fits_find_what_made_the_times():
  _, _, exact = points(lambda flops: flops.sum() / 3e9)
  assert step_times.fit(exact).speed == pytest.approx(3e9)
  assert step_times.fit(exact).error == pytest.approx(0, abs=1e-9)

  rate = np.array([4e9, 2e9, 1e9])
  _, _, mixed = points(lambda flops: 1e-6 + (flops / rate).sum())
  each = step_times.phases(mixed)
  assert list(each.speed.values()) == pytest.approx(rate.tolist(), rel=1e-6)
  assert each.constant == pytest.approx(1e-6, rel=1e-6)
  one = step_times.fit(mixed)
  assert one.error > each.error and 5e8 < one.speed < 4e9
  # No speed nearby is better.
  load = np.array([sum(p.flops) / p.seconds for p in mixed])
  for speed in (0.99 * one.speed, 1.01 * one.speed):
    assert np.sqrt(np.mean((load / speed - 1) ** 2)) > one.error
  # A phase that would need negative time is free.
  odd = [p._replace(seconds=(p.flops[0] + 1) / 1e9) for p in mixed]
  assert step_times.phases(odd).speed['layer_gradient'] is None


def test_costs_in_a_fleet_of_it_are_the_measured_ones(tmp_path):
  """Within the error that the fit states, here of noise of 5 %."""
  rng = np.random.default_rng(0)
  task, config, found = points(
    lambda flops: flops.sum() / 2e9 * rng.uniform(0.95, 1.05)
  )
  one, each = step_times.fit(found), step_times.phases(found)
  made = step_times.profile('board', LIKE, found, one, each)
  (tmp_path / 'board.json').write_text(json.dumps(made))
  read = figures.read(tmp_path / 'board.json')
  assert read.speed == pytest.approx(2e9, rel=0.05)
  assert read.watts == LIKE[1].watts and read.uplink == LIKE[1].uplink

  path = tmp_path / 'fleet.csv'
  path.write_text('name,share,sensors,device\nmine,100,all,board.json\n')
  cases = step_times.cases(task)
  fleet = fleets.build(
    str(path), len(cases), task.modalities, np.ones(len(cases)), rng
  )
  run, train = (
    jnp.asarray(np.stack(v)) for v in zip(*cases.values(), strict=True)
  )
  paid = costs.round_costs(
    task.work,
    fleet.replace(uplink=fleet.uplink * jnp.inf),
    Plan(run, train, train.astype(float)),
    jnp.full(len(cases), float(config.batch)),
    jnp.zeros(len(cases)),
    jnp.zeros(len(cases)),
  )
  measured = np.array([p.seconds for p in found])
  off = np.asarray(paid.seconds) / measured - 1
  np.testing.assert_allclose(off, one.residual, atol=1e-5)
  assert 0 < np.sqrt(np.mean(off**2)) < 0.05


@pytest.mark.slow
def test_a_step_moves_only_what_it_trains():
  task, population = step_times._model(tiny.config())
  params, cases = jax.jit(task.init)(jax.random.key(0)), step_times.cases(task)
  counted = {}
  for name in ('forward', 'fusion/mag', 'all'):
    run, train = cases[name]
    step = step_times._steps(task, population, 4, 2, run, train)
    built = step.lower(params).compile()
    counted[name] = built.cost_analysis()['flops']
    moved = jax.tree.map(
      lambda a, b: float((a != b).any()), built(params)[0], params
    )
    by_group = tree.group_sum(task.groups, moved, len(train))
    np.testing.assert_array_equal(np.asarray(by_group) > 0, train)
  assert counted['forward'] < counted['fusion/mag'] < counted['all']


def command(*args):
  return subprocess.run(
    [sys.executable, '-m', 'experiments.profile_device', *args],
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_the_command(tmp_path):
  """With a real clock: what is said about the times is not tested."""
  path = tmp_path / 'board.json'
  done = command(
    f'--out={path}',
    '--config=experiments/configs/relief.py:smoke',
    '--like=jetson_tx2',
    '--steps=2',
    '--repeats=1',
  )
  assert done.returncode == 0, done.stderr
  assert 'speed: ' in done.stdout and 'by phase: forward' in done.stdout
  made = json.loads(path.read_text())
  assert made['fit']['points'][0]['name'] == 'forward'
  assert all(p['seconds'] > 0 for p in made['fit']['points'])
  assert figures.read(path).watts == DEVICES['jetson_tx2'].watts


@pytest.mark.slow
def test_what_the_command_refuses(tmp_path):
  done = command(f'--out={tmp_path}/none/board.json')
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  assert 'none/board.json; expected a .json in a folder' in done.stderr
