"""Small classifiers whose last layer is linear."""

from lit_valuation.nn.conv_net import ConvNet
from lit_valuation.nn.mlp import MLP, LinearHead

__all__ = ["MLP", "ConvNet", "LinearHead"]
