"""Holds pieces that several methods share."""
