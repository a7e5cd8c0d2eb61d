"""Whether padding on either side changes nothing: logits of the text, and counts of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lit_core.errors import UserError
from lit_moe.doctor.check import Finding
from lit_moe.nn import moe_layers

if TYPE_CHECKING:
    from lit_moe.doctor.specimen import Specimen

#: Largest relative difference that float32 rounding explains.
_RTOL = 1e-4
_TOKENS = ((0, 0, 21), (1, 0, 13), (2, 2, 24), (3, 9, 24), (4, 3, 20))


def check(specimen: Specimen) -> Finding:
    """Compare padded texts with transformers' own model of each text alone."""
    ids_BS = specimen.tokens(5, 24)
    mask_BS = torch.zeros(5, 24, dtype=torch.bool)
    for row, start, end in _TOKENS:
        mask_BS[row, start:end] = True
    ours, theirs = specimen.decoder().eval(), specimen.decoder().model.eval()
    with torch.no_grad():
        try:
            logits_BSV = ours(ids_BS, mask=mask_BS)
        except UserError as error:
            return Finding("refused", str(error))
        for row, start, end in _TOKENS:
            alone = theirs(ids_BS[row : row + 1, start:end]).logits[0]
            difference = float((logits_BSV[row, start:end] - alone).norm() / alone.norm())
            if difference > _RTOL:
                side = "left" if start else "right"
                return Finding("fail", f"Padding on the {side} changes the logits of a text by {difference:.1g}.")
    for name, layer in moe_layers(ours).items():
        if layer.stats is not None and int(layer.stats.tokens) != int(mask_BS.sum()):
            return Finding(
                "fail", f"{name} counts {int(layer.stats.tokens)} tokens, but {int(mask_BS.sum())} are no padding."
            )
    return Finding("pass")
