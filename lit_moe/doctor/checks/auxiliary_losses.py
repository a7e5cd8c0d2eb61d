"""The auxiliary losses of gates, and their gradients, are those of their formulas."""

from __future__ import annotations

import torch

from lit_core.errors import UserError
from lit_moe.doctor.check import Finding
from lit_moe.doctor.losses import FACTORS, StepLosses
from lit_moe.doctor.routing import routed
from lit_moe.doctor.specimen import Specimen
from lit_moe.nn import HFDecoder, auxiliary_losses, step_routers

_ROWS, _LENGTH, _MICRO_BATCHES = 2, 9, 2


def check(specimen: Specimen) -> Finding:
    """Compare losses and gradients of two micro-batches with formulas and autograd, also under recomputation.

    Args:
        specimen: The model.
    """
    try:
        runs = [("", specimen.decoder(**FACTORS))]
    except UserError as error:
        return Finding("refused", str(error))
    try:
        runs.append((" with recomputation", specimen.decoder(activation_checkpointing=True, **FACTORS)))
    except UserError:  # transformers has no recomputation for the model
        pass
    reference = specimen.decoder().train()
    expected = _reference(reference, specimen)
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    for what, decoder in runs:
        losses = []
        for draw in range(_MICRO_BATCHES):
            torch.manual_seed(draw)
            states = decoder.train().hidden(specimen.tokens(_ROWS, _LENGTH, draw))
            losses.append(auxiliary_losses(decoder))
            (losses[-1] + 0 * states.sum()).backward()
        step_routers(decoder)
        for ours, theirs in zip(losses, expected, strict=True):
            if abs(float(ours.detach()) - theirs) > 1e-4 * theirs:
                return Finding("fail", f"The losses{what} are {float(ours.detach()):.5g}, and should be {theirs:.5g}.")
        scale = max(float(gradient.abs().max()) for gradient in gradients.values())
        for name, parameter in decoder.named_parameters():
            ours_grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            off = float((ours_grad - gradients.get(name, 0)).abs().max()) / scale
            if off > 1e-3:
                return Finding("fail", f"The losses' gradient of {name}{what} is off by {off:.1%} of the largest.")
    return Finding("pass")


def _reference(decoder: HFDecoder, specimen: Specimen) -> list[float]:
    """Return the losses of the micro-batches from their formulas, and add their gradients to the decoder's weights."""
    step, losses = StepLosses(decoder), []
    for draw in range(_MICRO_BATCHES):
        torch.manual_seed(draw)
        with routed(decoder.model, step.gates) as seen:
            states = decoder.hidden(specimen.tokens(_ROWS, _LENGTH, draw))
        [total] = step.of([seen], _ROWS)
        (total + 0 * states.sum()).backward()
        losses.append(float(total.detach()))
    return losses
