"""Continual pre-training of mixture-of-experts language models (Thérien et al. 2025, arXiv 2503.05029)."""

from typing import TYPE_CHECKING

from lit_core.lazy import exports

if TYPE_CHECKING:
    from lit_moe.callbacks import Forgetting, ReplayMixing, RouterBalance, RouterDrift, SampleText
    from lit_moe.data import TokenDataModule
    from lit_moe.module import MoELanguageModel
    from lit_moe.parallel.strategy import ShardedStrategy
    from lit_moe.schedules import CosineInf, InvSqrtInf, WarmupCosine

__all__ = [
    "CosineInf",
    "Forgetting",
    "InvSqrtInf",
    "MoELanguageModel",
    "ReplayMixing",
    "RouterBalance",
    "RouterDrift",
    "SampleText",
    "ShardedStrategy",
    "TokenDataModule",
    "WarmupCosine",
]
__getattr__, __dir__ = exports(__name__)
