"""Refuses settings that a method cannot be combined with, for all methods."""

from relief_jax import selection
from relief_jax.errors import InputError
from relief_jax.rounds.method import Method
from relief_jax.settings import Setting
from relief_jax.updates.link import Links


def check(
  setting: Setting, method: Method, links: Links, name: str = 'the method'
) -> None:
  """Refuses pairs of settings and methods that mean nothing together.

  Args:
    setting: of the round.
    method: to run.
    links: of the setting.
    name: of the method, for the message.

  Raises:
    InputError: such a pair.
  """
  traits, guard = method.traits, setting.guard
  if traits.silent or traits.wire:
    codes(setting, name, traits.wire or 'sends neither models nor updates')
  for on, why in (
    (traits.silent, 'no server is there to choose'),
    (method.events, 'a device starts as soon as another arrives'),
    (guard.noise, 'epsilon counts on devices being drawn at random'),
  ):
    if on:
      drawn(setting, name, why)
  if traits.silent or traits.lockstep:
    alone(setting, name)
  if traits.lockstep and setting.keep_client_state:
    raise InputError(
      f'config.keep_client_state for {name}',
      "False: in split training the optimiser of the server's part starts "
      "afresh with every round, and so does the devices'",
      'set --config.keep_client_state=False',
    )
  if traits.submodels and not (links.up.lossless and links.down.lossless):
    raise InputError(
      f'links that code by {setting.uplink_codec.name!r} (up) and '
      f'{setting.downlink_codec.name!r} (down) where parts of layers are sent',
      "'none' for both: codes are of whole layers",
      'set --config.uplink_codec.name=none --config.downlink_codec.name=none',
    )
  if traits.optimizers and setting.server_optimizer not in traits.optimizers:
    names = ', '.join(map(repr, traits.optimizers))
    raise InputError(
      f'config.server_optimizer={setting.server_optimizer} for {name}',
      f'{names}: the model is the mean of what devices send',
      f'set --config.server_optimizer={traits.optimizers[0]}',
    )
  if guard.clip and traits.projects:
    raise InputError(
      'config.hparams.clip_norm for a method that codes its parameters',
      '0: a clipped update no longer ends at such parameters',
      'set --config.hparams.clip_norm=0',
    )
  if setting.broadcast.kind:
    _broadcast(setting, method, name)
  if guard.robust:
    _robust(setting, method)
  if method.events:
    arrivals(setting, method, links)


def _broadcast(setting: Setting, method: Method, name: str) -> None:
  """Refuses methods whose devices must have what was sent."""
  traits = method.traits
  for found, why in (
    (traits.silent or traits.wire, 'whose messages are its own'),
    (traits.submodels, 'that sends parts of blocks'),
    (traits.lockstep, 'whose server and devices train one model'),
    (method.events, 'whose server acts on arrivals'),
    (method.base, 'whose server changes the frozen base'),
  ):
    if found:
      raise InputError(
        f'config.broadcast.kind={setting.broadcast.kind} for {name}, a method '
        f'{why}',
        'whole blocks of a model, each of which may be an older one',
        'set --config.broadcast.kind=off',
      )


def _robust(setting: Setting, method: Method) -> None:
  """Refuses weights, means over all, and sums where every client has a vote."""
  for found, cure in (
    (setting.weight == 'samples' and 'weights by samples', 'weight=uniform'),
    (
      method.traits.finds_weights and 'weights that the devices find',
      'flism.entropy=False (of hetlora: weights=equal)',
    ),
    (method.traits.sums and 'plain sums of what devices tell', 'mean=mean'),
    (
      method.aggregate.over == 'all'
      and 'a mean over those who do not hold an element too',
      'feddrop.denominator=contributors',
    ),
    (
      method.aggregate.adds and 'plain sums of updates beside the mean',
      'mean=mean, or leave out what sums them (relief.norm=cosine, flism.kd, '
      'merge_error)',
    ),
  ):
    if found:
      raise InputError(
        f'config.mean={setting.guard.mean} with {found}',
        'one vote for every client that trained',
        f'set --config.{cure}',
      )


def codes(setting: Setting, name: str, why: str) -> None:
  """Refuses codes of the links.

  Args:
    setting: of the round.
    name: of the method.
    why: no code can be, "sends ...".

  Raises:
    InputError: a codec is set.
  """
  for key in ('uplink_codec', 'downlink_codec'):
    codec = getattr(setting, key).name
    if codec != 'none':
      raise InputError(
        f'config.{key}.name={codec} for {name!r}',
        f"'none': this method {why}",
        f'set --config.{key}.name=none',
      )


def drawn(setting: Setting, name: str, why: str) -> None:
  """Refuses rules of selection.

  Args:
    setting: of the round.
    name: of the method.
    why: none can be.

  Raises:
    InputError: a rule other than the random draw.
  """
  if setting.selection != selection.RANDOM:
    raise InputError(
      f'config.selection.rule={setting.selection} for {name!r}',
      f'random: {why}',
      'set --config.selection.rule=random',
    )


def local(
  setting: Setting, name: str, why: str, among: tuple[str, ...] = ('momentum',)
) -> None:
  """Refuses local optimisers that a method's rules do not cover.

  Args:
    setting: of the round.
    name: of the method.
    why: no other can be, "divides updates by ...".
    among: those that can.

  Raises:
    InputError: another one.
  """
  own = setting.client_optimizer
  if own.name not in among or own.traced or own.fixed:
    more = ' with arguments' * bool(own.traced or own.fixed)
    raise InputError(
      f'config.client_optimizer={own.name}{more} for {name!r}',
      f'{" or ".join(among)}: this method {why}',
      f'set --config.client_optimizer={among[0]} and no arguments',
    )


def alone(setting: Setting, name: str) -> None:
  """Refuses settings that only a server that averages updates can use.

  Args:
    setting: of the round.
    name: of the method.

  Raises:
    InputError: something is not as by default.
  """
  guard = setting.guard
  for key, on, usual in (
    ('nonfinite=drop', guard.drop, 'nonfinite=stop'),
    ('hparams.clip_norm', guard.clip, 'hparams.clip_norm=0'),
    (f'mean={guard.mean}', guard.robust, 'mean=mean'),
    ('faults.share', guard.faults.kind, 'faults.share=0'),
    (f'privacy.noise={guard.noise}', guard.noise, 'privacy.noise=off'),
  ):
    if on:
      raise InputError(
        f'config.{key} for {name!r}',
        'a method whose server averages updates of clients',
        f'set --config.{usual}',
      )
  if setting.late:
    raise InputError(
      f'config.online.pace.wait for {name!r}',
      '0: nobody waits for updates there',
      'set --config.online.pace.wait=0',
    )


def arrivals(setting: Setting, method: Method, links: Links) -> None:
  """Refuses what a server that acts on arrivals has no use for.

  Args:
    setting: of the round.
    method: with `events`.
    links: of the setting.

  Raises:
    InputError: such a setting.
  """
  events = method.events
  assert events is not None
  if setting.late:
    raise InputError(
      'config.online.pace.wait where the server acts on arrivals',
      '0: nobody waits for the slowest, and an old update has its staleness',
      'set --config.online.pace.wait=0',
    )
  if setting.guard.noise:
    raise InputError(
      f'config.privacy.noise={setting.guard.noise} where the server acts on '
      'arrivals',
      'rounds whose devices follow from the draw alone, which epsilon counts',
      'set --config.privacy.noise=off',
    )
  if links.replica:
    raise InputError(
      f'config.downlink_codec.name={setting.downlink_codec.name} with error '
      'feedback where the server acts on arrivals',
      'a code of the model itself: devices start from several versions, and '
      'the change of the model is another one for each',
      'set --config.downlink_codec.error_feedback=off, or its name to none',
    )
  if setting.guard.robust and events.merge == 'weights':
    raise InputError(
      f'config.mean={setting.guard.mean} with weights by staleness',
      'one vote for every client that trained',
      'set --config.mean=mean',
    )
  most = setting.clients if events.tiers else setting.cohort
  if not 1 <= max(events.buffer, events.tiers) <= most:
    raise InputError(
      f'{events.tiers or events.buffer} '
      f'{"tiers" if events.tiers else "updates in the buffer"} '
      f'of {most} devices at work',
      f'from 1 to {most}',
      'make it smaller, or raise --config.clients or '
      '--config.clients_per_round',
    )
  least = -(-setting.cohort // events.buffer) - 1
  if events.limit and not events.tiers and events.limit < least:
    raise InputError(
      f'max_staleness={events.limit} with {setting.cohort} devices at work and '
      f'{events.buffer} of their updates in a step',
      f'at least {least}: else more updates are lost than heard',
      'raise it, or the buffer, or lower --config.clients_per_round',
    )
