"""Reads CIFAR-100 in its binary version: `--config.dataset=cifar100`.

As CIFAR-10 (cifar10.py), with two labels a record: of 20 and of 100 classes.
The 100 are used; `fine_label_names.txt` beside the files names them.
"""

from pathlib import Path

from relief_jax.datasets import cifar10
from relief_jax.datasets.windows import Windows

_FILES = ['train.bin', 'test.bin']


def files(root: Path | None) -> list[Path]:
  """Finds the two files below a data folder."""
  return cifar10.located(root, 'cifar100', _FILES)


def read(paths: list[Path]) -> Windows:
  """Loads all images, [n, 32, 32, 3] from 0 to 1.

  Args:
    paths: from `files`.

  Raises:
    InputError: other files.
  """
  classes = [str(i) for i in range(100)]
  names = paths[0].with_name('fine_label_names.txt')
  if names.is_file():
    found = names.read_text(encoding='utf-8').split()
    classes = found if len(found) == len(classes) else classes
  return cifar10.parse(paths, 2, classes)
