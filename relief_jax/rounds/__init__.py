"""Runs one round: its participants, work and costs."""
