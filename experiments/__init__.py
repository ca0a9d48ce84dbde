"""Command line tools: run, compare; the library does the work."""
