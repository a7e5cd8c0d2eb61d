"""Paths, atomic writes, locks and working folders."""
