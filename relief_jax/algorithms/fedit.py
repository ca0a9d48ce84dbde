"""FedIT: adapters averaged factor by factor (https://arxiv.org/abs/2305.05644).

Every device trains both factors of all adapters and the head; the server
averages `a` and `b` apart. The product of the means is not the mean of the
products: this is the noisy rule that the others of the family are measured
against. *Bytes*: r (i + o) numbers of every layer, both ways. `merge_error`
records how far the product is off in every round. Grade: published code
(https://github.com/ATP-1010/FederatedLLM). Factors of a sensor's inputs are
averaged over its owners (**ours**).
"""

from relief_jax.algorithms.parts.adapters import Family, Kind, Options
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.task import Task


@Facts(options=Options, adapters=True)
def fedit(task: Task, setting: Setting) -> Method:
  """Builds FedIT: FedAvg of the adapters."""
  return Family(task, setting, 'fedit', Kind()).method()
