"""Runs a simulation: its compiled program, evaluation, totals and records."""
