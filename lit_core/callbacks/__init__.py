"""Callbacks that every run of a LitShift command has; each is usable on any LightningModule."""

from lit_core.callbacks.branch import BranchFrom
from lit_core.callbacks.finite_loss import FiniteLoss
from lit_core.callbacks.graceful_stop import GracefulStop
from lit_core.callbacks.present_optimizer import PresentOptimizer
from lit_core.callbacks.run_checkpoint import RunCheckpoint, Stopped
from lit_core.callbacks.run_record import RunRecord

__all__ = ["BranchFrom", "FiniteLoss", "GracefulStop", "PresentOptimizer", "RunCheckpoint", "RunRecord", "Stopped"]
