"""FFA-LoRA: the first factor rests (https://arxiv.org/abs/2403.12313).

`a` stays as it was drawn, the same on all devices, which know it from the seed;
only `b` and the head train. The mean of b is then the mean of the products,
exactly. *Bytes*: r o numbers of every layer, both ways. An adapter whose `b` is
everybody's leaves nothing to train in the blocks of single sensors. Grade:
published. What is charged of a block's weight gradient is the share of its
numbers that train (**ours**).
"""

from relief_jax.algorithms.parts.adapters import Family, Kind, Options
from relief_jax.budgets.ranks import Halves
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Task


def second(round_index) -> Halves:
  """Gives the half `b`, in every round."""
  del round_index
  return Halves(a=False)


@Facts(options=Options, adapters=True)
def ffa_lora(task: Task, setting: Setting) -> Method:
  """Builds FFA-LoRA."""
  kind = Kind(halves=second, down=second)
  return Family(task, setting, 'ffa_lora', kind).method()
