"""Makes a data set of arrays at hand: images, rows of a table, texts. **Ours.**

    datasets.DATASETS['mine'] = datasets.from_arrays(x, y, client=client)
    config.dataset, config.data.split = 'mine', 'official'

What is held out is `test`, or else the last fifth of every client's samples.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relief_jax.datasets.windows import Windows, validate
from relief_jax.errors import InputError
from relief_jax.scoring import targets

TEST_SHARE = 0.2  # held out where nothing says what is


def from_arrays(
  x: ArrayLike | Mapping[str, ArrayLike],
  y: ArrayLike,
  client: ArrayLike | None = None,
  test: ArrayLike | None = None,
  classes: Sequence[str] = (),
  title: str = '',
  vocabulary: Sequence[str] | int = (),
) -> Callable[..., Windows]:
  """Makes a data set of arrays, to be named in `DATASETS`.

  Args:
    x: [n, columns], [n, height, width, channels], [n, time, channels] or of
      more axes, channels last; several modalities as {name: array}; of texts
      [n, T] ints, tokens from 0.
    y: [n] classes, ints from 0 or names; [n, T] ints, the tokens that follow,
      below 0 for none; or floats [n] or [n, D], numbers.
    client: [n] ints or names, whose sample it is; None: all are one's.
    test: [n] bool, held out by `config.data.split=official`; None: the last
      fifth of every client's samples.
    classes: names of the classes, tokens or columns of y; (): their numbers, or
      what y holds.
    title: of the data where results are shown; '': its name.
    vocabulary: names of the tokens, or how many there are, where x is texts and
      y their classes; x below 0 is then no token.

  Raises:
    InputError: arrays that do not fit together.
  """
  found = windows(x, y, client, test, classes, title, vocabulary=vocabulary)
  validate(found)
  digest = hashlib.sha256()
  for value in (*found.x.values(), found.y, found.subject, found.official_test):
    digest.update(np.ascontiguousarray(value).data)

  def load(config, root):
    del config, root
    return found

  vars(load)['stamp'] = digest.hexdigest()
  return load


def windows(
  x: Any,
  y: Any,
  client: Any = None,
  test: Any = None,
  classes: Sequence[str] = (),
  title: str = '',
  name: str = '',
  vocabulary: Sequence[str] | int = (),
) -> Windows:
  """Gives samples as `Windows`, sorted by client.

  Args:
    x: as in `from_arrays`, and so are the others.
    y: as there.
    client: as there.
    test: as there.
    classes: as there.
    title: as there.
    name: of the modality where x is one array; '': what it is.
    vocabulary: as there.

  Raises:
    InputError: arrays that do not fit together.
  """
  if isinstance(vocabulary, int | np.integer):
    vocabulary = tuple(map(str, range(vocabulary)))
  name = name or ('text' if vocabulary else 'input')
  values = {
    m: np.asarray(v)
    for m, v in (x if isinstance(x, Mapping) else {name: x}).items()
  }
  label, names = _targets(np.asarray(y), classes)
  count = len(label)
  subject, people = _clients(client, count)
  for what, value in (*values.items(), ('client', subject)):
    if len(value) != count or value.dtype.kind not in 'fiub':
      raise InputError(
        f'{what} of {value.dtype} and shape {value.shape} for {count} targets',
        f'{count} samples of numbers',
        'align the arrays along their first axis',
      )
  kind = targets.kind(label)
  text = bool(vocabulary) or kind == targets.TOKENS
  dtype = np.int32 if text else np.float32
  order = np.argsort(subject, kind='stable')
  subject = subject[order]
  _, first, size = np.unique(subject, return_index=True, return_counts=True)
  rank = np.arange(count) - np.repeat(first, size)
  width = _width(values, text)
  if test is None:
    held_out = rank >= np.repeat(size - np.rint(TEST_SHARE * size), size)
  else:
    held_out = np.asarray(test)
    if held_out.shape != (count,) or held_out.dtype != bool:
      raise InputError(
        f'test of {held_out.dtype} and shape {held_out.shape}',
        f'bool, ({count},)',
        'mark the samples to test on',
      )
    held_out = held_out[order]
  return Windows(
    x={m: _cast(m, v, dtype)[order] for m, v in values.items()},
    y=label[order],
    subject=subject.astype(np.int32),
    run=np.repeat(np.arange(len(size)), size).astype(np.int32),
    start=rank * width,
    classes=names,
    rate=1.0,
    width=width,
    official_test=held_out,
    title=title,
    people=people,
    vocabulary=tuple(map(str, vocabulary)),
  )


def _width(values: Mapping[str, NDArray], text: bool) -> int:
  """Gives the samples of a window, or tokens of a text; 1 for others."""
  shapes = [v.shape for v in values.values()]
  if text or all(len(shape) == 3 for shape in shapes):
    return shapes[0][1] if len(shapes[0]) > 1 else 1
  return 1


def _cast(name: str, value: NDArray, dtype: Any) -> NDArray:
  if dtype == np.int32 and value.dtype.kind not in 'iu':
    raise InputError(
      f'{name} of {value.dtype} where tokens are expected',
      'tokens, ints [n, T]',
      'look the symbols up in a vocabulary',
    )
  return value.astype(dtype)


def _targets(
  y: NDArray, classes: Sequence[str]
) -> tuple[NDArray, tuple[str, ...]]:
  """Numbers the classes; names them, the tokens, or the numbers."""
  if y.dtype.kind == 'f' and y.ndim in (1, 2):
    numbers = y.reshape(len(y), -1).astype(np.float32)
    width = numbers.shape[1]
    usual = ('y',) if width == 1 else tuple(f'y{i}' for i in range(width))
    return numbers, tuple(classes) or usual
  if y.dtype.kind == 'U' and y.ndim == 1 and not classes:
    values, label = np.unique(y, return_inverse=True)
    return label.astype(np.int32), tuple(values.tolist())
  if y.dtype.kind not in 'iu' or y.ndim not in (1, 2) or not y.size:
    raise InputError(
      f'y of {y.dtype} and shape {y.shape}',
      'classes, ints or names [n]; tokens, ints [n, T]; or numbers, floats '
      '[n] or [n, D]',
      'correct y',
    )
  count = len(classes) or int(y.max()) + 1
  names = tuple(map(str, classes or range(count)))
  return y.astype(np.int32), names


def _clients(client: Any, count: int) -> tuple[NDArray, dict[int, str]]:
  """Numbers the clients; those with names from 1, by name."""
  if client is None:
    return np.ones(count, np.int64), {}
  found = np.asarray(client)
  if found.dtype.kind == 'U' and found.ndim == 1:
    names, number = np.unique(found, return_inverse=True)
    return number + 1, dict(enumerate(names.tolist(), 1))
  if found.dtype.kind not in 'iu' or found.ndim != 1 or found.min() < 0:
    raise InputError(
      f'client of {found.dtype} and shape {found.shape}',
      f'ints from 0, or names, ({count},)',
      'number the clients',
    )
  return found.astype(np.int64), {}
