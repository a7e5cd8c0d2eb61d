"""Callbacks for continual pre-training; each is usable on any LightningModule."""

from lit_core.callbacks import LinearReplay, ReplayMixing, ReplaySchedule
from lit_moe.callbacks.forgetting import Forgetting
from lit_moe.callbacks.router_balance import RouterBalance
from lit_moe.callbacks.router_drift import RouterDrift
from lit_moe.callbacks.routing_fingerprint import RoutingFingerprint
from lit_moe.callbacks.sample_text import SampleText

__all__ = [
    "Forgetting",
    "LinearReplay",
    "ReplayMixing",
    "ReplaySchedule",
    "RouterBalance",
    "RouterDrift",
    "RoutingFingerprint",
    "SampleText",
]
