"""Callbacks for detectors of machine-written text, usable on any LightningModule with such batches."""

from lit_detect.callbacks.adversarial_training import AdversarialTraining
from lit_detect.callbacks.prediction_writer import PredictionWriter
from lit_detect.callbacks.robustness_monitor import RobustnessMonitor

__all__ = ["AdversarialTraining", "PredictionWriter", "RobustnessMonitor"]
