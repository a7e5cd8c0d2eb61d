"""Readers of text files of all kinds, one file per format."""

from lit_detect.formats.base import FileSource, TextSource
from lit_detect.formats.litshift import LitShiftJSONL

__all__ = [
    "FileSource",
    "LitShiftJSONL",
    "TextSource",
]
