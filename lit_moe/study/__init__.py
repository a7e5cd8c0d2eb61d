"""Cells of the continual pre-training study. `experiment` runs one cell."""

from lit_moe.study.cell import experiment
from lit_moe.study.options import ContinualOptions

__all__ = ["ContinualOptions", "experiment"]
