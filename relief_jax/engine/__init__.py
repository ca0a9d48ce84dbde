"""Lays clients out on processors; memory, processes, compilation."""
