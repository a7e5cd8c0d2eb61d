"""Small classifiers whose last layer is linear."""

from lit_valuation.nn.conv_net import ConvNet
from lit_valuation.nn.mlp import MLP, LinearHead
from lit_valuation.nn.token_conv_net import TokenConvNet

__all__ = ["MLP", "ConvNet", "LinearHead", "TokenConvNet"]
