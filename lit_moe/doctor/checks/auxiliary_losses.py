"""The auxiliary losses of gates, and their gradients, are those of their formulas.

Shape suffixes: T tokens of one call, E experts, k chosen experts per token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_moe.doctor.check import Finding
from lit_moe.doctor.routing import routed, score_in_source
from lit_moe.doctor.specimen import Specimen
from lit_moe.nn import HFDecoder, auxiliary_losses, step_routers

_FACTORS = {"balance_weight": 0.3, "z_weight": 0.02, "sequence_weight": 0.2, "global_weight": 0.4}
_ROWS, _LENGTH, _MICRO_BATCHES = 2, 9, 2


def check(specimen: Specimen) -> Finding:
    """Compare losses and gradients of two micro-batches with formulas and autograd, also under recomputation.

    Args:
        specimen: The model.
    """
    try:
        runs = [("", specimen.decoder(**_FACTORS))]
    except UserError as error:
        return Finding("refused", str(error))
    try:
        runs.append((" with recomputation", specimen.decoder(activation_checkpointing=True, **_FACTORS)))
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
    config = decoder.model.config.get_text_config()
    gates = {name: gate.router.n_experts for name, gate in decoder.watched.items()}
    scores = {name: score_in_source(decoder.model.get_submodule(name), config) for name in gates}
    counted: dict[str, Tensor] = {}
    losses = []
    for draw in range(_MICRO_BATCHES):
        torch.manual_seed(draw)
        with routed(decoder.model, gates) as seen:
            states = decoder.hidden(specimen.tokens(_ROWS, _LENGTH, draw))
        total = 0 * states.sum()
        for name in gates:
            logits_TE = seen.logits[name].float()
            top_k = decoder.watched[name].router.top_k
            indices_Tk = seen.indices.get(name, logits_TE.topk(top_k).indices)
            counted[name] = counted.get(name, 0) + _chosen(indices_Tk, logits_TE).sum(0)
            total = total + _layer(logits_TE, indices_Tk, counted[name], scores[name])
        total.backward()
        losses.append(float(total.detach()))
    return losses


def _layer(logits_TE: Tensor, indices_Tk: Tensor, step_E: Tensor, score: str) -> Tensor:
    """Return the sum of a layer's losses, token by token as their formulas are written."""
    by_name = {"softmax": torch.exp, "sigmoid": torch.sigmoid, "sqrtsoftplus": lambda z: (1 + z.exp()).log().sqrt()}
    scores_TE = by_name[score](logits_TE)
    share_TE = scores_TE / scores_TE.sum(-1, keepdim=True)
    chosen_TE, experts = _chosen(indices_Tk, logits_TE), logits_TE.shape[1]

    def balance(load_E: Tensor, rows: slice) -> Tensor:
        return experts * (load_E / load_E.sum() * share_TE[rows].mean(0)).sum()

    every = slice(None)
    rows = [slice(row * _LENGTH, (row + 1) * _LENGTH) for row in range(_ROWS)]
    return (
        _FACTORS["balance_weight"] * balance(chosen_TE.sum(0), every)
        + _FACTORS["global_weight"] * balance(step_E, every)
        + _FACTORS["sequence_weight"] * sum(balance(chosen_TE[row].sum(0), row) for row in rows) / _ROWS
        + _FACTORS["z_weight"] * logits_TE.exp().sum(-1).log().square().mean()
    )


def _chosen(indices_Tk: Tensor, logits_TE: Tensor) -> Tensor:
    """Return 1 for each expert that a token is sent to and 0 for the others, shape ``(tokens, experts)``."""
    chosen_TE = torch.zeros_like(logits_TE.detach())
    for token, experts in enumerate(indices_Tk.tolist()):
        for expert in experts:
            chosen_TE[token, expert] += 1
    return chosen_TE
