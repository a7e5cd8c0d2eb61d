"""Data valuation after Mycroft, for PyTorch Lightning: whose data helps a model, and which few samples to share."""

from lit_valuation.callbacks import GradientMatching
from lit_valuation.module import ClassifierTask

__all__ = ["ClassifierTask", "GradientMatching"]
