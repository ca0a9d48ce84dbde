"""A method outside of this package joins the contract by `--method`."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT


def collected(*args):
  """A pytest of its own that only lists the tests of the contract."""
  command = [sys.executable, '-m', 'pytest', 'tests/contract', '-n', '0']
  return subprocess.run(
    [*command, '--collect-only', '-q', '-k', 'scaffold', *args],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_a_method_outside_joins_by_its_name():
  assert collected().returncode == pytest.ExitCode.NO_TESTS_COLLECTED
  found = collected('-vv', '--method', 'examples/scaffold.py:scaffold')
  assert found.returncode == 0, found.stdout
  for test in ('test_the_loss_falls', 'test_same_seed_same_bits'):
    assert test in found.stdout
  wrong = collected('--method', 'examples/scaffold.py:none')
  assert wrong.returncode == pytest.ExitCode.USAGE_ERROR
  assert 'examples/scaffold.py:none' in wrong.stderr
