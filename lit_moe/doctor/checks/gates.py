"""All gates are found, and the tokens that they count for each expert are those that the expert was used by."""

from __future__ import annotations

import torch

from lit_core.errors import UserError
from lit_moe.doctor.check import Finding
from lit_moe.doctor.routing import used_by_gradient
from lit_moe.doctor.specimen import Specimen

_TOKENS = 12


def check(specimen: Specimen) -> Finding:
    """Compare the counts of each gate, without and with padding, with the experts that get a gradient from each token.

    Args:
        specimen: The model.
    """
    decoder = specimen.decoder().eval()
    if not decoder.watched:
        try:
            specimen.decoder(balance_weight=0.1)
        except UserError as error:
            return Finding("refused", str(error))
        return Finding("fail", "No gate is found, but a balance loss is not refused.")
    ids_N = specimen.tokens(_TOKENS, 1).flatten()
    used = used_by_gradient(decoder, ids_N)
    pairs_N2 = torch.stack([ids_N, ids_N.flip(0)], dim=1)
    mask_N2 = torch.tensor([[True, False]]).expand(_TOKENS, 2)
    for what, ids, mask in (("", ids_N[:, None], None), (" with padding", pairs_N2, mask_N2)):
        with torch.no_grad():
            decoder.hidden(ids, mask=mask)
        for name, gate in decoder.watched.items():
            if gate.stats is None:
                return Finding("fail", f"The gate {name} has not run{what}.")
            counts, expected = gate.stats.counts, used[name].sum(0)
            if int(gate.stats.tokens) != _TOKENS or int(counts.sum()) != _TOKENS * gate.router.top_k:
                return Finding("fail", f"The gate {name} counts {int(gate.stats.tokens)} tokens of {_TOKENS}{what}.")
            shared = min(len(counts), len(expected))
            # a column without weights of an expert, whose use leaves no gradient, has what remains
            if not len(expected) or not torch.equal(counts[:shared], expected[:shared]):
                differ = int((counts[:shared] - expected[:shared]).abs().sum())
                return Finding(
                    "fail", f"The counts of {name}{what} are off by {differ} from the experts that were used."
                )
    return Finding("pass")
