"""Holds the results of a finished run."""

from typing import Any, NamedTuple

import ml_collections
import pandas as pd

from relief_jax.types import PyTree


class Result(NamedTuple):
  """Holds the results of a finished run.

  Attributes:
    config: the resolved config.
    history: one record per evaluation, the first of round 0: scores, simulated
      costs so far, and `loss`, `divergence`, `trained_share` since the last.
    summary: status, totals and speed, as in summary.json.
    params: P of numpy arrays; [N, *P] for a personal method.
  """

  config: ml_collections.ConfigDict
  history: list[dict[str, Any]]
  summary: dict[str, Any]
  params: PyTree

  def to_pandas(self) -> pd.DataFrame:
    """Builds a table of the history, a row per evaluation, indexed by `round`.

    A score by tier, class, group or subset of sensors has a column for
    each, named `f1_by_tier.low`, `f1_by_class.walking`, `trained_share.shared`.

    >>> last = {'round': 5, 'f1': 0.5, 'f1_by_tier': {'low': 0.4}}
    >>> result = Result({}, [{'round': 0, 'f1': 0.1}, last], {}, ())
    >>> result.to_pandas().loc[5].to_dict()
    {'f1': 0.5, 'f1_by_tier.low': 0.4}
    """
    rows = [
      {
        k: dict(enumerate(v)) if isinstance(v, list) else v
        for k, v in record.items()
      }
      for record in self.history
    ]
    return pd.json_normalize(rows).set_index('round')
