"""Finds, reads and prints to files."""
