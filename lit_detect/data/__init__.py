"""Texts for detectors: the data module, text shards, users' files, splitting into train, val and test."""

from typing import TYPE_CHECKING

from lit_core.lazy import exports

if TYPE_CHECKING:
    from lit_detect.data.module import TextDataModule

__all__ = ["TextDataModule"]
__getattr__, __dir__ = exports(__name__)
