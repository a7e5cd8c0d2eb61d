"""Readers of text files of all kinds, one file per format."""
