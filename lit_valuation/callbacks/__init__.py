"""Callbacks that work on any LightningModule: training by gradient matching, and a table of predictions."""

from lit_valuation.callbacks.gradient_matching import GradientMatching
from lit_valuation.callbacks.prediction_table import PredictionTable

__all__ = ["GradientMatching", "PredictionTable"]
