"""FedPer (Arivazhagan et al., 2019, https://arxiv.org/abs/1912.00818).

The base of the network is averaged, the head stays on the device.

    relief run --config=fedavg --workdir=runs/fedper \\
        --config.method=examples/fedper.py:fedper
"""

from relief_jax.algorithms.fedavg import fedavg
from relief_jax.rounds.method import Method
from relief_jax.rounds.personal import personal
from relief_jax.settings import Setting
from relief_jax.task import Task


def fedper(task: Task, setting: Setting) -> Method:
  """Builds FedPer; grade: published."""
  return personal(task, fedavg(task, setting), keep=task.blocks.of('head'))
