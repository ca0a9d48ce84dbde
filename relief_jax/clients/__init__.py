"""Trains one device: its windows, sensors and local work."""
