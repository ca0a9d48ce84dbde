"""Metrics of a user's own."""

from collections.abc import Callable, Mapping

from relief_jax.storage.callback import Callback
from relief_jax.storage.result import Result


class Metrics(Callback):
  """Adds numbers of one's own to every evaluation's record.

  They stand in metrics.jsonl, in TensorBoard and in `Result.metrics` as all
  others do, and `EarlyStopping` can watch them.

  Args:
    function: (run so far) -> {name: number}; predicts with `run.predict`.
  """

  def __init__(self, function: Callable[[Result], Mapping[str, float]]):
    self._function = function

  def measure(self, run: Result) -> Mapping[str, float]:
    """Calls the function."""
    return self._function(run)
