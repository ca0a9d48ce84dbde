"""Where the repository lies, for tests that read files or start programs."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
