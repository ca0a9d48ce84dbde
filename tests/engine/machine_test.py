"""The part of a machine that a process may use."""

import os

import pytest

from relief_jax.engine import machine

V1 = '4:memory:/job\n3:cpu,cpuacct:/job\n'
V2 = '0::/slice/job\n'
MOUNT_V1 = (
  '31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n'
  '32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n'
  '33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n'
)
MOUNT_V2 = '30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n'


@pytest.fixture
def node(monkeypatch):
  """A large node, of which all may be used."""
  monkeypatch.setattr(os, 'cpu_count', lambda: 64)
  monkeypatch.setattr(
    os, 'sched_getaffinity', lambda _: set(range(16)), raising=False
  )


def tree(root, cgroup, mounts, **files):
  """A root with these files; slashes in names are written as __."""
  (root / 'proc/self').mkdir(parents=True)
  (root / 'proc/self/cgroup').write_text(cgroup)
  (root / 'proc/self/mountinfo').write_text(mounts)
  for name, text in files.items():
    path = root / 'sys/fs/cgroup' / name.replace('__', '/').replace('-', '.')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return root


def test_affinity_counts_before_the_machine(node, tmp_path, monkeypatch):
  assert machine.cores(tmp_path) == 16
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {5})
  assert machine.cores(tmp_path) == 1
  monkeypatch.delattr(os, 'sched_getaffinity')  # macOS
  assert machine.cores(tmp_path) == 64
  monkeypatch.setattr(os, 'cpu_count', lambda: None)
  assert machine.cores(tmp_path) == 1


@pytest.mark.parametrize(
  ('outer', 'inner', 'cores'),
  [
    ('max 100000', 'max 100000', 16),
    ('max 100000', '300000 100000', 3),
    ('150000 100000', 'max 100000', 2),  # a half counts as one
    ('200000 100000', '900000 100000', 2),  # the group around it
    ('max 100000', '1000 100000', 1),
    ('max 100000', 'nonsense', 16),
  ],
)
def test_the_quota_of_every_group_around_counts(
  node, tmp_path, outer, inner, cores
):
  files = {'slice__cpu.max': outer, 'slice__job__cpu.max': inner}
  assert machine.cores(tree(tmp_path, V2, MOUNT_V2, **files)) == cores


def test_the_older_control_groups(node, tmp_path):
  files = {
    'cpu__job__cpu.cfs_quota_us': '400000\n',
    'cpu__job__cpu.cfs_period_us': '100000\n',
    'cpu__cpu.cfs_quota_us': '-1\n',
    'cpu__cpu.cfs_period_us': '100000\n',
    'memory__job__memory.limit_in_bytes': '1000000\n',
    'memory__memory.limit_in_bytes': str(2**63 - 4096),
  }
  root = tree(tmp_path, V1, MOUNT_V1, **files)
  assert machine.cores(root) == 4
  assert machine.memory(root) == 1_000_000


def test_memory_is_that_of_the_own_group(tmp_path):
  files = {'slice__memory.max': '3000000', 'slice__job__memory.max': 'max'}
  assert machine.memory(tree(tmp_path, V2, MOUNT_V2, **files)) == 3_000_000


def test_a_container_sees_its_group_as_the_top(tmp_path):
  """The path is the host's, or leads out of what is mounted."""
  mounts = MOUNT_V2.replace(' / /sys', ' /docker/1 /sys')
  for number, path in enumerate(('/docker/1/in', '/docker/1', '/../other')):
    files = {'memory.max': '5000000', 'in__memory.max': '7000000'}
    root = tmp_path / str(number)
    tree(root, f'0::{path}\n', mounts, **files)
    assert machine.memory(root) == 5_000_000


def test_where_nobody_tells_the_machine_counts(tmp_path):
  assert machine.memory(tmp_path) > 10**8
  assert machine.cores() >= 1
