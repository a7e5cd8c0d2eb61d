"""Data valuation after Mycroft, for PyTorch Lightning: whose data helps a model, and which few samples to share."""

from typing import TYPE_CHECKING

from lit_core.lazy import exports

if TYPE_CHECKING:
    from lit_valuation.callbacks import GradientMatching
    from lit_valuation.module import ClassifierTask
    from lit_valuation.multi_label import MultiLabelTask
    from lit_valuation.regression import RegressionTask
    from lit_valuation.tagging import TaggingTask

__all__ = ["ClassifierTask", "GradientMatching", "MultiLabelTask", "RegressionTask", "TaggingTask"]
__getattr__, __dir__ = exports(__name__)
