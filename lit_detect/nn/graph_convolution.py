"""Graph convolution with a dense adjacency matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GraphConvolution(nn.Module):
    """Graph convolution of Kipf and Welling 2017 (arXiv 1609.02907, Eq. 2): tanh(Â X W + b).

    Args:
        inputs: Width of the input states.
        outputs: Width of the output states.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, states: Tensor, adjacency: Tensor) -> Tensor:
        """Return the states of the next layer.

        Args:
            states: States of the nodes, ``(..., nodes, inputs)``.
            adjacency: Normalised adjacency, ``(..., nodes, nodes)``.

        Returns:
            States ``(..., nodes, outputs)``.
        """
        return torch.tanh(adjacency @ nn.functional.linear(states, self.linear.weight) + self.linear.bias)
