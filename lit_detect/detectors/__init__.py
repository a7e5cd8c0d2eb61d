"""Detectors, one file per method."""

from lit_detect.detectors.base import Detector, FeatureDetector, TrainedDetector, ZeroShotDetector
from lit_detect.detectors.binoculars import Binoculars
from lit_detect.detectors.distil_fast import DistilFAST
from lit_detect.detectors.encoder import EncoderDetector
from lit_detect.detectors.ensemble import Ensemble
from lit_detect.detectors.entity_statistics import EntityStatistics
from lit_detect.detectors.fast import FASTDetector
from lit_detect.detectors.fast_detect_gpt import FastDetectGPT
from lit_detect.detectors.gltr import GLTRDetector
from lit_detect.detectors.grover import GroverDetector
from lit_detect.detectors.log_likelihood import LogLikelihood
from lit_detect.detectors.log_rank import LogRank
from lit_detect.detectors.lrr import LRR
from lit_detect.detectors.token_statistics import TokenStatistics

__all__ = [
    "LRR",
    "Binoculars",
    "Detector",
    "DistilFAST",
    "EncoderDetector",
    "Ensemble",
    "EntityStatistics",
    "FASTDetector",
    "FastDetectGPT",
    "FeatureDetector",
    "GLTRDetector",
    "GroverDetector",
    "LogLikelihood",
    "LogRank",
    "TokenStatistics",
    "TrainedDetector",
    "ZeroShotDetector",
]
