"""Callbacks for detectors of machine-written text, usable on any LightningModule with such batches."""

from lit_detect.callbacks.prediction_writer import PredictionWriter

__all__ = ["PredictionWriter"]
