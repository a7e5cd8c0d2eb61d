"""Checks of what this package does with a model of transformers, on a small random copy of it."""
