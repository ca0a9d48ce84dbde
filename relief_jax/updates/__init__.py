"""Treats one client's update on its way to the server."""
