"""Orders the windows of devices in time. **Ours.**"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from relief_jax.datasets.windows import Windows


def before(
  windows: Windows, rows: NDArray, parts: Sequence[NDArray]
) -> NDArray:
  """Finds the window that comes before each on its device, [L] int64.

  That is the latest earlier one of the same recording that the device has, or
  the window itself where there is none. Devices that share a window and do not
  agree on it have none either, so nobody reads what another one holds.

  >>> import numpy as np
  >>> from types import SimpleNamespace
  >>> three = SimpleNamespace(
  ...   subject=np.ones(3), run=np.array([0, 0, 1]), start=np.array([9, 0, 20])
  ... )
  >>> before(three, np.array([0, 1, 2]), [np.array([0, 1, 2])]).tolist()
  [1, 1, 2]

  Args:
    windows: of the data set.
    rows: [L] of them, in the order of a bank; its end may repeat rows.
    parts: rows of each device.

  Returns:
    Places in `rows`.
  """
  found = np.arange(len(rows))
  unique, place = np.unique(rows, return_index=True)
  settled = np.full(len(rows), -1)
  for part in parts:
    run, start = windows.run[part], windows.start[part]
    order = np.lexsort((start, run, windows.subject[part]))
    at = place[np.searchsorted(unique, part[order])]
    earlier = np.concatenate([at[:1], at[:-1]])
    one = np.stack([windows.subject[part], run])[:, order]
    fresh = np.ones(len(at), bool)
    fresh[1:] = (one[:, 1:] != one[:, :-1]).any(0)
    earlier = np.where(fresh, at, earlier)
    agree = (settled[at] < 0) | (settled[at] == earlier)
    settled[at] = np.where(agree, earlier, at)
  held = settled >= 0
  found[held] = settled[held]
  return found
