"""Encoders, which turn inputs into features: public pretrained networks, and simple baselines."""

from lit_valuation.encoders.base import Encoder, embed
from lit_valuation.encoders.efficientnet_lite0 import EfficientNetLite0
from lit_valuation.encoders.hugging_face import HuggingFaceEncoder, MiniLM
from lit_valuation.encoders.stamp import EncoderStamp
from lit_valuation.encoders.task_features import Identity, TaskFeatures, TokenCounts

__all__ = [
    "EfficientNetLite0",
    "Encoder",
    "EncoderStamp",
    "HuggingFaceEncoder",
    "Identity",
    "MiniLM",
    "TaskFeatures",
    "TokenCounts",
    "embed",
]
