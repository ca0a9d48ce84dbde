"""A run directory: what it holds and how it is written."""
