"""Cells of the study of detection in the wild and under attack."""

from lit_detect.study.detection import Files, experiment

__all__ = ["Files", "experiment"]
