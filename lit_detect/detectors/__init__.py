"""Detectors, one file per method."""

from lit_detect.detectors.base import Detector, FeatureDetector, TrainedDetector, ZeroShotDetector

__all__ = ["Detector", "FeatureDetector", "TrainedDetector", "ZeroShotDetector"]
