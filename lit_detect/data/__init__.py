"""Texts for detectors: the data module, text shards, users' files, splitting into train, val and test."""

from lit_detect.data.module import TextDataModule

__all__ = ["TextDataModule"]
