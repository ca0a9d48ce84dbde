"""RELIEF where nobody waits: cohort means weighted by staleness. **Ours.**

Plans, scores, budgets and what is sent are RELIEF's (algorithms/relief.py,
https://arxiv.org/abs/2604.04243): a device chooses its blocks when it starts,
by the divergences known then. The server makes a step of every K arrivals, and
each block moves by the mean over those of them that trained it,

    theta_g <- theta_g + sum_n w(s_n) u_n,g / |T_g|           damped=True
    theta_g <- theta_g + sum_n w(s_n) u_n,g / sum_n w(s_n)    damped=False

The second counts an old update less than a fresh one of the same block, and all
of it where there is no other, so that a rare sensor whose owners are slow is
not damped for being alone. But then nothing makes steps smaller where all are
old: on MHEALTH at a rate of .1 it diverged (docs/async.md), so the first is the
default. With a buffer of all devices and all of them at work both are RELIEF.
Grade: nothing of it is published beside RELIEF.

*Budget*: as RELIEF, a device by itself. *Bytes and FLOPs*: as RELIEF, for each
update.
"""

import dataclasses

from relief_jax.algorithms import relief as sync
from relief_jax.algorithms.parts import staleness
from relief_jax.errors import InputError
from relief_jax.keys import option, switch
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Events, Method
from relief_jax.settings import Setting
from relief_jax.task import Task


@dataclasses.dataclass(frozen=True)
class Options(staleness.Buffered, sync.Options):
  """Holds the options of RELIEF and of a buffer."""

  damped: bool = option(
    switch(
      True,
      'an old update is scaled; False: it counts less in the mean of its block',
    )
  )


@Facts(options=Options, skips=True, budgeted=True, arrivals=True)
def relief_async(task: Task, setting: Setting) -> Method:
  """Builds RELIEF of a server that acts on arrivals.

  Args:
    task: the model.
    setting: the round, with `Options`.

  Raises:
    InputError: as `relief`, or confidence in sensors.
  """
  options = setting.options
  if options.confidence:
    raise InputError(
      "config.relief_async.confidence=True for 'relief_async'",
      'False: what devices tell of their sensors belongs to one version',
      'set --config.relief_async.confidence=False, or --config.method=relief',
    )
  return sync.relief(task, setting)._replace(
    events=Events(
      buffer=staleness.size(options.buffer, setting.cohort),
      weight=staleness.weight(options),
      merge='updates' if options.damped else 'weights',
      limit=options.max_staleness,
    )
  )
