"""Makes up texts by author: `--config.dataset=synthetic_text`. **Ours.**

Words of made-up letters, a few of them dear to each author, so that there is
something to learn in seconds and without a file.
"""

from pathlib import Path

import ml_collections
import numpy as np

from relief_jax.datasets import texts
from relief_jax.datasets.windows import Windows

_LETTERS = np.array(list('abcdefghijklmnopqrstuvwxyz'))
_WORDS, _LINES, _WORDS_A_LINE = 64, 40, 8
_TASTE = 0.3  # concentration of an author's words; small is uneven


def load(config: ml_collections.ConfigDict, root: Path | None) -> Windows:
  """Makes the texts; nothing is read or written.

  Args:
    config: `synthetic.subjects` authors, `data.width` and `seed`.
    root: not used.
  """
  del root
  rng = np.random.default_rng(config.seed)
  lengths = rng.integers(2, 7, _WORDS)
  words = [''.join(rng.choice(_LETTERS, length)) for length in lengths]
  authors = {}
  for number in range(config.synthetic.subjects):
    taste = rng.dirichlet(np.full(_WORDS, _TASTE))
    picks = rng.choice(_WORDS, (_LINES, _WORDS_A_LINE), p=taste)
    authors[f'author {number + 1:02}'] = [
      ' '.join(words[i] for i in line) for line in picks
    ]
  return texts.by_author(authors, config.data.width)
