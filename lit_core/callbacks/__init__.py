"""Callbacks for any LightningModule: those that each run of a LitShift command has, and replay of earlier data."""

from lit_core.callbacks.branch import BranchFrom
from lit_core.callbacks.compile_parts import CompileParts
from lit_core.callbacks.finite_loss import FiniteLoss
from lit_core.callbacks.graceful_stop import GracefulStop
from lit_core.callbacks.monitored_keys import MonitoredKeys
from lit_core.callbacks.present_optimizer import PresentOptimizer
from lit_core.callbacks.replay_mixing import LinearReplay, ReplayMixing, ReplaySchedule
from lit_core.callbacks.run_answer import RunAnswer
from lit_core.callbacks.run_checkpoint import RunCheckpoint
from lit_core.callbacks.run_progress import RunProgress
from lit_core.callbacks.run_record import RunRecord
from lit_core.callbacks.run_summary import RunSummary
from lit_core.callbacks.unmoved_weights import UnmovedWeights
from lit_core.errors import Stopped

__all__ = [
    "BranchFrom",
    "CompileParts",
    "FiniteLoss",
    "GracefulStop",
    "LinearReplay",
    "MonitoredKeys",
    "PresentOptimizer",
    "ReplayMixing",
    "ReplaySchedule",
    "RunAnswer",
    "RunCheckpoint",
    "RunProgress",
    "RunRecord",
    "RunSummary",
    "Stopped",
    "UnmovedWeights",
]
