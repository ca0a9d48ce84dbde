"""Gives scikit-learn's handwritten digits: `--config.dataset=digits`.

1,797 images of 8x8, of E. Alpaydin, C. Kaynak, Optical recognition of
handwritten digits, UCI 1998; they come with scikit-learn, so that a first run
needs no file (`pip install 'relief_jax[images]'`). The last fifth is held out:
other people wrote it.
"""

from pathlib import Path

import ml_collections
import numpy as np

from relief_jax.datasets import arrays
from relief_jax.datasets.windows import Windows
from relief_jax.errors import InputError


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Loads all images, [n, 8, 8, 1] from 0 to 1.

  Args:
    config: not used.
    root: not used.

  Raises:
    InputError: scikit-learn is not installed.
  """
  del config, root
  try:
    from sklearn import datasets
  except ImportError as error:
    raise InputError(
      'config.dataset=digits without scikit-learn',
      'the package that brings these images',
      "pip install 'relief_jax[images]'",
    ) from error
  found = datasets.load_digits()
  x = (found.images / found.images.max())[..., None].astype(np.float32)
  classes = tuple(map(str, found.target_names))
  y = found.target.astype(np.int32)
  return arrays.windows(x, y, classes=classes, name='image')
