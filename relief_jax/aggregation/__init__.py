"""Averages updates over the clients of a round."""
