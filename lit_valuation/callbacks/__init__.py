"""Callbacks around data selection; each is usable on any LightningModule."""

from lit_valuation.callbacks.gradient_matching import GradientMatching
from lit_valuation.callbacks.prediction_table import PredictionTable

__all__ = ["GradientMatching", "PredictionTable"]
