"""Is this text machine-written, and does the detector survive the wild and an attacker?"""

from lit_detect.callbacks import AdversarialTraining, RobustnessMonitor
from lit_detect.data import TextDataModule
from lit_detect.module import DetectorTask
from lit_detect.normalize import normalize_text

__all__ = ["AdversarialTraining", "DetectorTask", "RobustnessMonitor", "TextDataModule", "normalize_text"]
