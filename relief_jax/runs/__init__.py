"""A whole run: its compiled program, evaluation, totals and records."""
