"""Cells of the study of detection in the wild and under attack. `experiment` runs one cell."""

from lit_detect.study.detection import experiment
from lit_detect.study.files import Files, PlainTexts
from lit_detect.study.options import DetectionOptions

__all__ = ["DetectionOptions", "Files", "PlainTexts", "experiment"]
