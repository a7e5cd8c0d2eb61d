"""Readers of data sets of human and machine texts, one file per format."""

from lit_detect.formats.base import FileSource, RowSource, TextSource
from lit_detect.formats.binoculars import BinocularsJSONL
from lit_detect.formats.coco import CoCoJSONL
from lit_detect.formats.embedded import EmbeddedPairs, EmbeddedWild
from lit_detect.formats.fast_detectgpt import FastDetectGPTJSON
from lit_detect.formats.gpt2_output import GPT2OutputDataset
from lit_detect.formats.grover import GroverJSONL
from lit_detect.formats.hc3 import HC3
from lit_detect.formats.litshift import LitShiftJSONL
from lit_detect.formats.m4 import M4
from lit_detect.formats.mgtbench import MGTBench
from lit_detect.formats.pu import PuJSONL
from lit_detect.formats.raid import RAIDCSV
from lit_detect.formats.table import TextTable

__all__ = [
    "HC3",
    "M4",
    "RAIDCSV",
    "BinocularsJSONL",
    "CoCoJSONL",
    "EmbeddedPairs",
    "EmbeddedWild",
    "FastDetectGPTJSON",
    "FileSource",
    "GPT2OutputDataset",
    "GroverJSONL",
    "LitShiftJSONL",
    "MGTBench",
    "PuJSONL",
    "RowSource",
    "TextSource",
    "TextTable",
]
