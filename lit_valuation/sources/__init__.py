"""Labelled data from packages, files and folders."""
