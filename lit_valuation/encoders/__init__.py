"""Encoders that turn inputs into features in which nearness means likeness."""
