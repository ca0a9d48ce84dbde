"""RoLoRA: the factors take turns (arXiv 2502.01755).

In odd rounds, the first among them, `b` trains and `a` rests, in even rounds
the other way round. One factor is the same on all devices, so that the mean of
the other is the mean of the products, exactly, and both learn. *Bytes*: r o or
r i up; down the factor that moved in the round before, and both where not
everybody takes part in every round (**ours**). In even rounds a block without
`a` has only its other parameters to train. Grade: secondary: the abstract
(https://arxiv.org/abs/2502.01755) and a third party's code
(https://github.com/boyi-liu/FedLLM-Factory); expect orderings, not numbers.
What is charged of a block's weight gradient is the share of its numbers that
train (**ours**).
"""

from relief_jax.algorithms.parts.adapters import Family, Kind, Options
from relief_jax.budgets.ranks import Halves
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Task


def turn(index) -> Halves:
  """Gives the half that trains in round number `index`, from 0."""
  even = index % 2 == 0
  return Halves(~even, even)


@Facts(options=Options, adapters=True)
def rolora(task: Task, setting: Setting) -> Method:
  """Builds RoLoRA."""
  together = setting.cohort == setting.clients
  kind = Kind(
    halves=turn,
    down=(lambda index: turn(index + 1)) if together else None,
  )
  return Family(task, setting, 'rolora', kind).method()
