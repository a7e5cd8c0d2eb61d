"""Callbacks, one class per file."""
