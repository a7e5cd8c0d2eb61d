"""Whose data helps, and which few samples should change hands: Mycroft as PyTorch Lightning parts."""

from lit_valuation.callbacks import GradientMatching
from lit_valuation.module import ClassifierTask

__all__ = ["ClassifierTask", "GradientMatching"]
