"""The figure and the words about a world, before anything trains."""

import numpy as np
import pytest
from matplotlib import image

from relief_jax.report import world_figure
from relief_jax.world import client_data, fleets
from tests.support import tiny


def view(**overrides):
  c = tiny.config(**overrides)
  return world_figure.view(
    client_data.build_clients(c, None), fleets.tier_names(c.fleet)
  )


def test_view_counts_what_is_there():
  found = view()
  assert found.table.shape == (6, 4)
  # Four persons of 16 windows, each window once.
  assert found.table.sum() == 64 and found.unused == found.shared == 0
  assert found.owned.shape == (6, 3) and found.subjects.tolist() == [1] * 6
  words = world_figure.summary(found)
  assert '6 devices, 64 windows' in words and 'correlation' in words


def test_shared_windows_are_counted():
  found = view(clients=90, reuse=4)
  assert found.table.sum() >= 360 and found.shared == 64
  assert '64 on several' in world_figure.summary(found)


def test_many_kinds_become_classes_of_speed(tmp_path):
  path = tmp_path / 'fleet.csv'
  rows = [f'd{i},1,all,jetson_nano,{1 + i}' for i in range(20)]
  path.write_text('\n'.join(['name,count,sensors,device,speed_gflops', *rows]))
  found = view(clients=20, fleet=str(path))
  assert len(found.kinds) == 8
  speeds = [found.speed[found.kind == t].mean() for t in range(8)]
  assert speeds == sorted(speeds)


@pytest.mark.parametrize(
  'overrides',
  [
    dict(clients=2, fleet='uniform'),
    dict(clients=300, reuse=5, partition='dirichlet', alpha=100.0),
  ],
)
def test_figure(tmp_path, overrides):
  path = tmp_path / 'world.png'
  world_figure.draw(view(**overrides), path)
  pixels = image.imread(path)
  assert pixels.shape[1] == 1300 and np.ptp(pixels) == 1
