"""Runs as tables, figures and a page."""
