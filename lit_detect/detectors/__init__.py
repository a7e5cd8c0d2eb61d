"""Detectors, one file per method."""

from lit_detect.detectors.base import Detector, FeatureDetector, TrainedDetector, ZeroShotDetector
from lit_detect.detectors.encoder import EncoderDetector

__all__ = ["Detector", "EncoderDetector", "FeatureDetector", "TrainedDetector", "ZeroShotDetector"]
