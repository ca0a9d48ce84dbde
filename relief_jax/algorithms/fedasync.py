"""FedAsync (Xie et al., 2019, https://arxiv.org/abs/1903.03934).

    device   theta_n = SGD of loss + rho / 2 |theta - theta_start|^2
    server   theta <- (1 - alpha w(s)) theta + alpha w(s) theta_n

at every arrival: a device's *model*, trained from an older version, is mixed
into the present one. w is constant, polynomial or hinge (parts/staleness.py).
Up to `clients_per_round` devices work at a time. Defaults are those of a port,
FLGo (https://github.com/WwZzz/easyFL): alpha .6, rho .005, polynomial of power
.5, hinge from 6 steps on with slope 10; the port's own default is constant.
Models that come at once are averaged there, which `buffer` above 1 does.

Departures: s counts from 0, for a device whose model is still the server's;
alpha does not fall over the run. **Ours**: only blocks that the device trained
are mixed; `max_staleness`. Grade: secondary (the abstract and that port; the
publication's text was not at hand).

*Budget*: none. *Bytes and FLOPs*: as FedAvg, for each update.
"""

import dataclasses

from relief_jax.algorithms.fedavg import fedavg
from relief_jax.algorithms.parts import staleness
from relief_jax.keys import LARGE, MANY, option, real, whole
from relief_jax.rounds.facts import Facts
from relief_jax.rounds.method import Events, Method
from relief_jax.settings import Setting
from relief_jax.task import Task


@dataclasses.dataclass(frozen=True)
class Options(staleness.Options):
  """Holds the options of FedAsync (arXiv 1903.03934)."""

  alpha: float = option(real(0.6, 0, 1, 'share of a fresh model in the mix'))
  rho: float = option(
    real(0.005, 0, LARGE, 'of the pull to the model received; 0: none')
  )
  buffer: int = option(
    whole(
      1,
      0,
      MANY,
      'models in a step of the server; 0: all at work (clients_per_round)',
    )
  )


@Facts(options=Options, fill='input', arrivals=True)
def fedasync(task: Task, setting: Setting) -> Method:
  """Builds FedAsync.

  Args:
    task: the model.
    setting: the round, with `Options`.
  """
  options, weight = setting.options, staleness.weight(setting.options)

  return fedavg(task, setting)._replace(
    client=staleness.pulled(task, options.rho),
    events=Events(
      buffer=options.buffer or setting.cohort,
      weight=lambda age: options.alpha * weight(age),
      merge='models',
      limit=options.max_staleness,
    ),
  )
