"""Networks and routers; none of them knows of Lightning."""

from lit_moe.nn.adapters import AdapterConfig, add_adapters, merge_adapters
from lit_moe.nn.bias_router import BiasRouter
from lit_moe.nn.cache import KVCache
from lit_moe.nn.config import DecoderConfig, MoEConfig, preset
from lit_moe.nn.decoder import Decoder, ParameterCounts
from lit_moe.nn.experts import GroupedExperts
from lit_moe.nn.feed_forward import FeedForward, MoEFeedForward, MoELayer, auxiliary_losses, moe_layers
from lit_moe.nn.gates import WatchedGate, watch_gates
from lit_moe.nn.hf_config import HFConfig
from lit_moe.nn.hf_decoder import HFDecoder
from lit_moe.nn.penalty_router import PenaltyRouter
from lit_moe.nn.router import Router, RouterCallable, RouterOutput, RouterStats, step_routers
from lit_moe.nn.sinkhorn_router import SinkhornRouter
from lit_moe.nn.topk_router import TopKRouter
from lit_moe.nn.uniform_router import UniformRouter

__all__ = [
    "AdapterConfig",
    "BiasRouter",
    "Decoder",
    "DecoderConfig",
    "FeedForward",
    "GroupedExperts",
    "HFConfig",
    "HFDecoder",
    "KVCache",
    "MoEConfig",
    "MoEFeedForward",
    "MoELayer",
    "ParameterCounts",
    "PenaltyRouter",
    "Router",
    "RouterCallable",
    "RouterOutput",
    "RouterStats",
    "SinkhornRouter",
    "TopKRouter",
    "UniformRouter",
    "WatchedGate",
    "add_adapters",
    "auxiliary_losses",
    "merge_adapters",
    "moe_layers",
    "preset",
    "step_routers",
    "watch_gates",
]
