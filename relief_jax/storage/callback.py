"""What code of a user's own may do while a run goes on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from relief_jax.errors import InputError
from relief_jax.storage.result import Result


class Callback:
  """Is called while a run goes on; this one does nothing.

  Subclasses override what they need. Every method is given the run so far
  (`Result`): its config, history, summary, model. Of several processes the
  first one alone calls.

  >>> class Print(Callback):
  ...   def on_evaluation(self, run, record):
  ...     print(record['round'], record['f1'])
  """

  def on_start(self, run: Result) -> None:
    """Is called before the first evaluation, or the first after a resume."""

  def measure(self, run: Result) -> Mapping[str, float]:
    """Gives numbers of one's own by name, which join the evaluation's record.

    Called before the record is written and before any `on_evaluation`.
    """
    del run
    return {}

  def on_evaluation(self, run: Result, record: dict[str, Any]) -> str | None:
    """Is called after each evaluation, when its record is written.

    Returns:
      Why the run is to stop; None to go on.
    """

  def on_end(self, run: Result) -> None:
    """Is called when the run ended and its summary is written.

    Complete, stopped, interrupted or diverged; not after an error.
    """


def measure(
  callbacks: Sequence[Callback], run: Result, record: dict[str, Any]
) -> dict[str, float]:
  """Collects the numbers of all callbacks.

  Args:
    callbacks: of the run.
    run: so far.
    record: of the evaluation that they are to join.

  Raises:
    InputError: a name that is there already, or no number.
  """
  found: dict[str, float] = {}
  for one in callbacks:
    for name, value in one.measure(run).items():
      if name in record or name in found:
        raise InputError(
          f'a metric of your own named {name!r}',
          'a name that no record has yet',
          'rename it',
        )
      if isinstance(value, bool | str) or np.ndim(value):
        raise InputError(
          f'{name}={value!r} as a metric', 'a number', 'return float(...)'
        )
      found[name] = float(value)
  return found


def asks_to_stop(
  callbacks: Sequence[Callback], run: Result, record: dict[str, Any]
) -> str:
  """Tells all callbacks of an evaluation.

  Returns:
    Why the first of those that ask for it wants the run to stop; '' if none
    does.
  """
  reasons = [one.on_evaluation(run, record) for one in callbacks]
  return next((reason for reason in reasons if reason), '')
