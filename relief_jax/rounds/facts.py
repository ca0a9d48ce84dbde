"""A method's facts: what is known of it before a model or a world is built.

A factory `(Task, Setting) -> Method` declares them where it is defined:

>>> import dataclasses
>>> @dataclasses.dataclass(frozen=True)
... class Options:
...   heads: float = keys.option(keys.real(0.5, 0, 1, 'probability'))
>>> @Facts(options=Options, budgeted=True)
... def coin(task, setting):
...   ...
>>> of(coin).budgeted, of(coin).make().heads
(True, 0.5)

A config has the keys `coin.heads` by it, and the round `setting.options.heads`.

What depends on the model, the options or other settings is no fact but a trait
of the built method (`rounds.method.Traits`): the world is made from facts, and
a method can only be built in a world.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from relief_jax import keys

Factory = TypeVar('Factory', bound=Callable)


class Facts(NamedTuple):
  """Declares what a method is; a decorator of its factory.

  Attributes:
    options: frozen dataclass whose fields are `keys.option`s; None without.
    fill: `input` or `skip`, what happens to absent modalities where the config
      leaves it open.
    skips: a device never runs the encoder of a sensor that it lacks, so that
      `fill='input'` means nothing and the model is not tested on filled
      windows.
    adapters: the model needs a frozen base and adapters (`task.Ranks`).
    experts: the model needs a mixture of experts (`task.Experts`).
    exits: the model needs an exit behind every layer (`task.Exits`).
    budgeted: it chooses what to train under `config.deadline`.
    classes: it reads the classes of windows, in training or at the server.
    rounds: it has rounds on devices; an online world means nothing without.
    splits: devices hold a part of the model, whose memory the method checks.
    arrivals: its server acts on updates as they arrive, so that a round is no
      time of which an online world could say what happens in it.
  """

  options: type | None = None
  fill: str = 'skip'
  skips: bool = False
  adapters: bool = False
  experts: bool = False
  exits: bool = False
  budgeted: bool = False
  classes: bool = False
  rounds: bool = True
  splits: bool = False
  arrivals: bool = False

  def __call__(self, factory: Factory) -> Factory:
    """Attaches the facts to a factory."""
    vars(factory)['facts'] = self
    return factory

  @property
  def rows(self) -> Mapping[str, keys.Key]:
    """The rows of the options, by name."""
    return keys.rows_of(self.options) if self.options else {}

  def make(self, values: Mapping[str, Any] | None = None) -> Any:
    """Makes the record of options, `Setting.options`.

    Args:
      values: by name, in place of defaults; others of the mapping are left.

    Returns:
      The record, or () for a method without options.
    """
    if self.options is None:
      return ()
    values = values or {}
    return self.options(**{k: values[k] for k in self.rows if k in values})


def of(factory: Callable) -> Facts:
  """Gives what a factory declares; without, the facts of a plain method."""
  return getattr(factory, 'facts', Facts())
