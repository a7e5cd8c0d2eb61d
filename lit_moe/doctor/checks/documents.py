"""Whether documents in one row are isolated: logits and gradients are those of each document run alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_moe.doctor.check import Finding

if TYPE_CHECKING:
    from lit_moe.doctor.specimen import Specimen

#: Largest relative difference that float32 rounding explains.
_RTOL = 1e-4
_DOCUMENTS = torch.tensor([[0] * 10 + [1] * 9 + [2] * 5, [0] * 24, [0] * 3 + [1] * 21])
_PIECES = ((0, 0, 10), (0, 10, 19), (0, 19, 24), (1, 0, 24), (2, 0, 3), (2, 3, 24))
#: Of the same rows with padding on both sides.
_PADDED = ((0, 0, 10), (0, 10, 19), (0, 19, 21), (1, 0, 20), (2, 2, 3), (2, 3, 24))


def check(specimen: Specimen) -> Finding:
    """Compare documents in one row, with and without padding, with transformers' own model of each document alone."""
    ids_BS = specimen.tokens(3, 24)
    mask_BS = torch.zeros(3, 24, dtype=torch.bool)
    for row, start, end in _PADDED:
        mask_BS[row, start:end] = True
    ours, theirs = specimen.decoder().eval(), specimen.decoder().model.eval()
    try:
        for mask, pieces in ((None, _PIECES), (mask_BS, _PADDED)):
            packed_BSV = ours(ids_BS, mask=mask, document_ids=_DOCUMENTS)
            alone = [theirs(ids_BS[row : row + 1, start:end]).logits[0] for row, start, end in pieces]
            packed = [packed_BSV[row, start:end] for row, start, end in pieces]
            worst = max(_difference(*pair) for pair in zip(packed, alone, strict=True))
            if worst > _RTOL:
                where = "with padding" if mask is not None else "without padding"
                return Finding(
                    "fail", f"The logits of a document differ from those of it alone by {worst:.1g} {where}."
                )
    except UserError as error:
        return Finding("refused", str(error))
    for model, texts in ((ours, packed), (theirs, alone)):
        model.zero_grad()
        torch.cat(texts).logsumexp(-1).sum().backward()
    ours_by_name = {name.removeprefix("model."): each.grad for name, each in ours.named_parameters()}
    all_theirs = [parameter.grad.norm() for parameter in theirs.parameters() if parameter.grad is not None]
    floor = 1e-5 * float(torch.stack(all_theirs).norm())  # of gradients that are 0 but for rounding
    for name, parameter in theirs.named_parameters():
        gradient = ours_by_name[name]
        if gradient is None or parameter.grad is None:
            continue
        if _difference(gradient, parameter.grad, floor) > 10 * _RTOL:
            return Finding("fail", f"The gradient of {name} differs from that of the documents run alone.")
    return Finding("pass")


def _difference(ours: Tensor, theirs: Tensor, floor: float = 0.0) -> float:
    return float((ours - theirs).detach().norm() / theirs.detach().norm().clamp(min=floor))
