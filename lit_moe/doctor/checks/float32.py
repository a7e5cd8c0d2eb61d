"""Float32: what transformers keeps in float32 when it loads a model in 16 bits, we keep as well."""

from __future__ import annotations

from typing import Any

import torch

from lit_core.files.temporary import scratch
from lit_core.lm.transformers_loading import quiet_transformers
from lit_moe.doctor.check import Finding
from lit_moe.doctor.specimen import Specimen


def check(specimen: Specimen) -> Finding:
    """Compare the formats of weights after a conversion with those after transformers' own loading, and the values.

    Args:
        specimen: The model.
    """
    kept = 0
    for dtype in (torch.bfloat16, torch.float16):
        theirs, whole, ours = _loaded(specimen, dtype), _tensors(specimen.decoder().model), specimen.decoder().to(dtype)
        for name, tensor in _tensors(ours.model).items():
            if tensor.dtype != theirs[name].dtype:
                reason = f"{name} is {tensor.dtype}, but {theirs[name].dtype} where transformers loads {dtype}."
                return Finding("fail", reason)
            if tensor.dtype == torch.float32:
                kept += 1
                if not torch.equal(tensor, whole[name]):
                    return Finding("fail", f"{name} is float32, but rounded to {dtype}.")
    return Finding("pass") if kept else Finding("n/a", "It has no weights that transformers keeps in float32.")


def _loaded(specimen: Specimen, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    model = specimen.decoder().model
    with scratch("doctor") as folder, quiet_transformers():
        model.save_pretrained(folder)
        return _tensors(type(model).from_pretrained(folder, dtype=dtype))


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
