"""Names the metrics of the kinds of targets, and how people read them."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from relief_jax.scoring import targets


class Metric(NamedTuple):
  """Describes a metric; every kind of targets has a main one.

  Attributes:
    name: of its fields in records, `f1`, `f1_by_tier`, ...
    title: for people.
    short: likewise, in a line of progress.
    unit: in files.
    beside: a second metric of every device's model; None: there is none.
    largest: the largest is best, else the smallest.
    percent: people read it in percent.
  """

  name: str
  title: str
  short: str
  unit: str
  beside: 'Metric | None' = None
  largest: bool = True
  percent: bool = False

  @property
  def scale(self) -> float:
    """Factor from the number in files to what people read."""
    return 100.0 if self.percent else 1.0

  @property
  def label(self) -> str:
    """The title with the unit that people read, for an axis."""
    return f'{self.title} (%)' if self.percent else self.title

  @property
  def label_short(self) -> str:
    """The same of the short title, for a heading."""
    return f'{self.short} %' if self.percent else self.short

  @property
  def head(self) -> str:
    """The title as a sentence begins."""
    return self.title[0].upper() + self.title[1:]

  @property
  def pair(self) -> 'tuple[Metric, ...]':
    """The metric, and the one beside it where there is one."""
    return (self, self.beside) if self.beside else (self,)

  @property
  def sign(self) -> int:
    """Factor that makes the largest the best."""
    return 1 if self.largest else -1

  def text(self, value: float | None) -> str:
    """Formats a value for people.

    >>> F1.text(0.6123), RMSE.text(0.6123)
    ('61.2 %', '0.612')
    """
    if value is None:
      return '–'
    return f'{100 * value:.1f} %' if self.percent else f'{value:.3g}'

  def best(self, values: Iterable[float]) -> float | None:
    """Finds the best value; None of none."""
    return max(values, key=lambda v: self.sign * v, default=None)

  def worst(self, values: Iterable[float]) -> float:
    """Finds the worst of some values.

    >>> F1.worst([0.2, 0.3]), RMSE.worst([0.2, 0.3])
    (0.2, 0.3)
    """
    return min(values, key=lambda v: self.sign * v)

  def reached(self, value: Any, target: float) -> Any:
    """Tells whether a value, or each of an array, is as good as the target."""
    return self.sign * value >= self.sign * target


_SHARE = 'share 0..1'
ACCURACY = Metric('accuracy', 'accuracy', 'accuracy', _SHARE, percent=True)
TOKEN_ACCURACY = Metric(
  'token_accuracy', 'token accuracy', 'token accuracy', _SHARE, percent=True
)
F1 = Metric('f1', 'macro-F1', 'F1', _SHARE, ACCURACY, percent=True)
PERPLEXITY = Metric(
  'perplexity',
  'perplexity',
  'perplexity',
  'exp(nats)',
  TOKEN_ACCURACY,
  largest=False,
)
RMSE = Metric('rmse', 'RMSE', 'RMSE', 'as the targets', largest=False)
OF = {targets.CLASSES: F1, targets.TOKENS: PERPLEXITY, targets.NUMBERS: RMSE}
MAIN = {metric.name: metric for metric in OF.values()}
EVERY = {one.name: one for metric in OF.values() for one in metric.pair}


def largest(field: str) -> bool:
  """Tells whether the largest of a field of records is the best.

  >>> largest('f1_by_tier.low'), largest('rmse_own'), largest('test_loss')
  (True, False, False)
  """
  return _behind(field).largest and not field.startswith(('test_loss', 'loss'))


def shown(field: str, value: float) -> str:
  """Formats a score of records for people.

  >>> shown('f1_validation', 0.5), shown('rmse_own', 0.5)
  ('50.0 %', '0.5')
  """
  return _behind(field).text(value)


def _behind(field: str) -> Metric:
  """Finds the main metric that a field is of; F1 of all other shares."""
  return next((m for m in OF.values() if field.startswith(m.name)), F1)


def main_of(metric: Metric) -> Metric:
  """Finds the main metric that a metric is, or is beside.

  >>> main_of(ACCURACY).name, main_of(RMSE).name
  ('f1', 'rmse')
  """
  return next(main for main in OF.values() if metric in main.pair)


def target_key(metric: Metric) -> str:
  """Names the key of the config, and field, that holds what is to be reached.

  >>> target_key(F1), target_key(RMSE)
  ('target_f1', 'target')
  """
  return 'target_f1' if metric is F1 else 'target'


def of(record: Mapping[str, Any]) -> Metric:
  """Finds the main metric of a record; F1 where it has none.

  The field counts, not its value: what is no finite number is null in files.

  >>> of({'round': 5, 'rmse': None}).title
  'RMSE'
  """
  return next((m for m in MAIN.values() if m.name in record), F1)
