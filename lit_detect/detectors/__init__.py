"""Detectors, one file per method."""

from lit_detect.detectors.base import Detector, FeatureDetector, TrainedDetector, ZeroShotDetector
from lit_detect.detectors.distil_fast import DistilFAST
from lit_detect.detectors.encoder import EncoderDetector
from lit_detect.detectors.entity_statistics import EntityStatistics
from lit_detect.detectors.fast import FASTDetector
from lit_detect.detectors.grover import GroverDetector

__all__ = [
    "Detector",
    "DistilFAST",
    "EncoderDetector",
    "EntityStatistics",
    "FASTDetector",
    "FeatureDetector",
    "GroverDetector",
    "TrainedDetector",
    "ZeroShotDetector",
]
