"""Weights of a model of transformers that stay in float32 when it is converted to 16 bits."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def kept_in_float32(model: Any, build: Callable[[], Any], dtype: torch.dtype) -> list[str]:
    """Return the names of parameters and buffers that transformers keeps in float32 when it loads a model.

    They are those in whose name a pattern of the model's class is found, where ``*`` stands for anything. Others are
    those that the model itself makes in float32 whatever its format, such as the frequencies of rotary positions.

    Args:
        model: A model of transformers.
        build: Builds another one of its config, on the meta device.
        dtype: The number format to which it is converted.
    """
    patterns = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:  # whose range is smaller than that of bfloat16
        patterns |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    kept = [re.compile(pattern.replace("*", ".*")) for pattern in patterns]
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        explicit = {name for name, tensor in _tensors(build()).items() if tensor.dtype == torch.float32}
    finally:
        torch.set_default_dtype(default)
    plain = {name: name.replace(".base_layer", "") for name in _tensors(model)}  # as without adapters
    return [name for name, own in plain.items() if own in explicit or any(one.search(own) for one in kept)]


def _tensors(model: Any) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
