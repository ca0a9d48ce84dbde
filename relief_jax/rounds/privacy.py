"""Refuses what noise in the mean would not hide. **Ours.**

The promise (runs/privacy.py) is about one device's windows: whatever they are,
the server sees a sum of clipped updates and Gaussian noise, and nothing else of
them. So every update has the same weight and a bounded norm, and the server's
next step and the next plan may follow from the model and from facts of the
fleet, yet from no other number that a device told. The latter is found out by
tracing the round, so it holds for methods of your own.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.interpreters import partial_eval

from relief_jax.aggregation.mean import Mean
from relief_jax.errors import InputError
from relief_jax.rounds.method import Method, Round, Server
from relief_jax.settings import Setting
from relief_jax.types import PyTree
from relief_jax.updates.link import Links

_PLAIN = (
  'a method whose server sees nothing of a device but its clipped update in '
  'the mean'
)
_CURE = 'set --config.method=fedavg, fedprox or cohort_mean'


def check(setting: Setting, method: Method, links: Links, name: str) -> None:
  """Refuses settings and methods in which noise does not hide a device.

  Args:
    setting: of the round, with noise.
    method: to run.
    links: of the setting.
    name: of the method, for the message.

  Raises:
    InputError: such a setting, or such a method.
  """
  key = f'config.privacy.noise={setting.guard.noise}'
  for wrong, found, expected, cure in (
    (
      not setting.guard.clip,
      'without a clip',
      'updates of a bounded norm',
      'set --config.hparams.clip_norm=1',
    ),
    (
      setting.weight == 'samples',
      'with weights by samples',
      "one weight for all, or a device's share has no bound",
      'set --config.weight=uniform',
    ),
    (
      setting.guard.drop,
      'with nonfinite=drop',
      'numbers of devices in a mean that do not follow from their updates',
      'set --config.nonfinite=stop',
    ),
    (
      setting.guard.robust,
      f'with mean={setting.guard.mean}',
      'a plain mean, whose noise is known',
      'set --config.mean=mean',
    ),
    (
      not links.up.lossless,
      f'with uplink_codec.name={setting.uplink_codec.name}',
      'updates in full: a code may make them longer than the clip, and its sum '
      'is not the sum',
      'set --config.uplink_codec.name=none',
    ),
    (
      bool(setting.late),
      'with online.pace.wait',
      'a server that waits: who is late depends on its windows',
      'set --config.online.pace.wait=0',
    ),
  ):
    if wrong:
      raise InputError(f'{key} {found}', expected, cure)
  why = _reveals(method)
  if why:
    raise InputError(f'{key} for {name!r}: {why}', _PLAIN, _CURE)


def _reveals(method: Method) -> str:
  """Says what a method tells beside the mean, '' for nothing that it states."""
  traits = method.traits
  for found, why in (
    (traits.sums, 'devices send sums of other numbers too'),
    (traits.finds_weights, 'devices find their weights themselves'),
    (traits.submodels, 'devices train parts of blocks, each of another size'),
    (traits.projects, 'what devices send is not free to be changed'),
    (traits.personal, 'every device has a model of its own'),
    (traits.silent or traits.lockstep, 'no server averages whole updates'),
    (traits.wire, f'it {traits.wire}'),
    (method.transforms, 'it changes updates itself before the clip'),
    (method.base is not None, 'it merges updates into the frozen base'),
    (
      method.aggregate.adds or not method.aggregate.plain,
      'its mean is no plain sum of updates',
    ),
  ):
    if found:
      return why
  return ''


def check_plan(
  setting: Setting, method: Method, server: Server, round: Round, name: str
) -> None:
  """Refuses a plan that follows from what devices hold, by tracing it.

  Args:
    setting: of the round, with noise.
    method: to run.
    server: its state.
    round: before its plan.
    name: of the method, for the message.

  Raises:
    InputError: such a plan.
  """

  def plan(told):
    return method.plan(server, _with(round, told))

  told = {
    'what devices keep from earlier rounds': round.clients,
    "devices' windows": (round.windows, round.population),
  }
  _refuse(setting, name, 'its plan', plan, told)


def check_server(
  setting: Setting,
  method: Method,
  server: Server,
  mean: Mean,
  round: Round,
  name: str,
) -> None:
  """Refuses a server that acts on more than the noisy mean, by tracing it.

  Args:
    setting: of the round, with noise.
    method: to run.
    server: its state.
    mean: of the round.
    round: after it.
    name: of the method, for the message.

  Raises:
    InputError: such a server.
  """

  def step(told):
    own = dict(zip(_OTHER, told[_NUMBERS], strict=True))
    return method.server(server, mean._replace(**own), _with(round, told))[0]

  told = {
    _NUMBERS: tuple(getattr(mean, field) for field in _OTHER),
    'what devices keep from earlier rounds': round.clients,
    "devices' windows": (round.windows, round.population),
  }
  _refuse(setting, name, 'its server', step, told)


_NUMBERS = 'norms, spreads or sums of their updates'
_OTHER = ('variance', 'sq_norm', 'extra', 'sums', 'rows')


def _with(round: Round, told: dict[str, Any]) -> Round:
  windows, population = told["devices' windows"]
  return round._replace(
    clients=told['what devices keep from earlier rounds'],
    windows=windows,
    population=population,
  )


def _refuse(
  setting: Setting,
  name: str,
  who: str,
  function: Callable[[dict[str, Any]], PyTree],
  told: dict[str, Any],
) -> None:
  """Refuses a function whose results need any of its arguments."""

  def arrays(told):
    found = jax.tree.leaves(function(told))
    return [v for v in found if isinstance(v, jax.Array)]

  traced = jax.make_jaxpr(arrays)(told).jaxpr
  _, needed = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
  used = jax.tree.unflatten(jax.tree.structure(told), needed)
  for what, parts in used.items():
    if any(jax.tree.leaves(parts)):
      raise InputError(
        f'config.privacy.noise={setting.guard.noise} for {name!r}: {who} '
        f'follows from {what}, which no noise hides',
        _PLAIN,
        _CURE,
      )
