"""Configs: every file has `get_config(variant)`; see `common`."""
