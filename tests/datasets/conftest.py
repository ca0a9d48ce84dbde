"""Set-up of the tests of loaders."""

import pytest


@pytest.fixture
def root(tmp_path, monkeypatch):
  """An empty data folder, and a cache of its own."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.delenv('RELIEF_DATA_DIR', raising=False)
  folder = tmp_path / 'data'
  folder.mkdir()
  return folder
