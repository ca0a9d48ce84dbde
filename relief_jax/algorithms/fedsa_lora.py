"""FedSA-LoRA: the first factor is shared, the rest stays (arXiv 2410.01463).

Devices train both factors and the head; only `a` is sent and averaged, `b` and
the head stay on the device. There is no model for all: every device has its own
and is tested with it. *Bytes*: r i of every layer, both ways. Grade: published
code (https://github.com/Pengxin-Guo/FedSA-LoRA;
https://arxiv.org/abs/2410.01463). Departures: no dropout inside the adapters.
"""

import jax.numpy as jnp

from relief_jax import blocks, tree
from relief_jax.algorithms.parts.adapters import Family, Kind
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Method, Round, Server, Traits
from relief_jax.rounds.personal import personal
from relief_jax.settings import Setting
from relief_jax.task import CostOverride, Plan, Task


@Facts(skips=True, adapters=True)
def fedsa_lora(task: Task, setting: Setting) -> Method:
  """Builds FedSA-LoRA.

  Args:
    task: the model, with adapters.
    setting: the round. A device keeps all but the factors `a`.
  """
  setting = setting._replace(fill='skip')
  family = Family(task, setting, 'fedsa_lora', Kind())
  base = family.method()
  shared = {a for layer in family.ranks.layers for a in layer.a}
  groups = blocks.leaf_groups(task)
  keep = tree.with_leaves(
    groups, {k: k not in shared for k in tree.named_leaves(groups, '/')}
  )
  sent = 4 * family.ranks.rank * family.table.counts.a.sum(0)

  def plan(server: Server, round: Round) -> Plan:
    found = base.plan(server, round)
    wire = jnp.asarray([sent, sent], jnp.float32)
    return found._replace(cost=CostOverride(wire=wire))

  method = base._replace(
    plan=plan, traits=Traits(wire='sends one factor of every adapter')
  )
  return personal(task, method, keep)
