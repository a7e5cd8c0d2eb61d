"""The projection of tokens to router logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RouterLinear(nn.Linear):
    """Router projection without bias, in float32 also under autocast: bfloat16 logits tie and change the experts."""

    def __init__(self, d_model: int, n_experts: int) -> None:
        super().__init__(d_model, n_experts, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(..., n_experts)``, float32 (float64 for float64 inputs)."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.linear(x.to(dtype), self.weight.to(dtype))
