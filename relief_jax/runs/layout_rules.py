"""Rules of thumb for layouts: which are worth a try, and which one is taken."""

from collections.abc import Mapping

from relief_jax.engine import processes

_FASTER = 0.95  # of the rule of thumb's time, or noise would decide
_CHUNKS = 256  # blocks one after the other on an accelerator, at most


def candidates(cohort: int, devices: int, backend: str) -> tuple[str, ...]:
  """Lists layouts that may be the fastest; few, since each is compiled.

  Args:
    cohort: K.
    devices: of all processes, that may be used.
    backend: of JAX.

  Returns:
    Names, the rule of thumb first.

  >>> candidates(48, 2, 'cpu')
  ('one', 'one@1', 'block:8')
  >>> candidates(240, 1, 'gpu')
  ('all', 'one', 'block:16', 'block:64')
  """
  if backend != 'cpu':
    blocks = [
      b
      for b in (1, 16, 64, 256)
      if b * devices < cohort <= b * devices * _CHUNKS
    ]
    names = [f'block:{b}' if b > 1 else 'one' for b in blocks]
    return ('all', *names)
  names = ['one']
  if processes.count() == 1:
    # Small rounds lose more by handing work out than they gain; cores that
    # share their units (two threads each) count half.
    fewer = {max(devices // 2, 1), 1} - {devices}
    names += [f'one@{count}' for count in sorted(fewer, reverse=True)]
  if cohort >= 8 * devices:
    names.append('block:8')
  # All at once was never the fastest, and takes memory.
  return tuple(names)


def fastest(seconds: Mapping[str, float | None]) -> str:
  """Finds the fastest layout; the first one unless another gains 5 %.

  >>> fastest({'one': 1.0, 'all': 0.97}), fastest({'one': 1.0, 'all': 0.9})
  ('one', 'all')
  >>> fastest({'all': None, 'block:16': 2.0, 'one': 3.0})
  'block:16'

  Args:
    seconds: of each; None where it does not fit. Where none fits the first
      one is returned, and refused with the run's own figures.
  """
  first = next(iter(seconds))
  fit = {name: value for name, value in seconds.items() if value is not None}
  if not fit:
    return first
  best = min(fit, key=lambda name: fit[name])
  if first in fit and fit[best] > _FASTER * fit[first]:
    return first
  return best
