"""Exit codes of commands.

0 done, 1 some runs failed, 2 bad input, 3 diverged, 74 a disk that cannot be
written (EX_IOERR), 75 interrupted (EX_TEMPFAIL: try again later). What was
begun goes on with --resume after 74 and 75.
"""

from relief_jax.storage import records

FAILED, BAD_INPUT, DIVERGED, STORAGE, INTERRUPTED = 1, 2, 3, 74, 75
# By the status of a run.
CODES = {
  records.COMPLETE: 0,
  records.DIVERGED: DIVERGED,
  records.INTERRUPTED: INTERRUPTED,
}
