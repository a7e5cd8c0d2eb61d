"""The auxiliary losses of gates by their formulas, token by token, of what hooks see in a model of transformers.

Shape suffixes: T tokens of one call, E experts, k chosen experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_moe.doctor.routing import Routed, score_in_source
from lit_moe.nn import HFDecoder

#: Factors of all losses that a model with gates can have.
FACTORS = {"balance_weight": 0.3, "z_weight": 0.02, "sequence_weight": 0.2, "global_weight": 0.4}


class StepLosses:
    """Losses of the micro-batches of an optimizer step, whose tokens are counted over micro-batches and devices.

    Args:
        decoder: A network with gates, or without, which has no losses.

    Attributes:
        gates: Number of columns of the logits of each gate, as `routed` takes them.
    """

    def __init__(self, decoder: HFDecoder) -> None:
        config = decoder.model.config.get_text_config()
        self.gates = {name: gate.router.n_experts for name, gate in decoder.watched.items()}
        self._chosen = {name: gate.router.top_k for name, gate in decoder.watched.items()}
        self._scores = {name: score_in_source(decoder.model.get_submodule(name), config) for name in self.gates}
        self._counted: dict[str, Tensor] = {}

    def of(self, calls: Sequence[Routed], rows: int) -> list[Tensor]:
        """Return the sum of all gates' losses in each of some micro-batches, which several devices run at once.

        Args:
            calls: What each of them routes.
            rows: Sequences of each micro-batch, all of one length.
        """
        totals = [torch.zeros(()) for _ in calls]
        for name in self.gates:
            logits = [seen.logits[name].float() for seen in calls]
            chosen = [
                _one_hot(seen.indices.get(name, logits_TE.topk(self._chosen[name]).indices), logits_TE)
                for seen, logits_TE in zip(calls, logits, strict=True)
            ]
            now_E = torch.stack([one.sum(0) for one in chosen]).sum(0)
            self._counted[name] = self._counted.get(name, torch.zeros_like(now_E)) + now_E
            for index, (logits_TE, chosen_TE) in enumerate(zip(logits, chosen, strict=True)):
                loss = _losses(logits_TE, chosen_TE, self._counted[name], self._scores[name], rows)
                totals[index] = totals[index] + loss
        return totals

    def end_step(self) -> None:
        """Begin to count anew, as after an optimizer step."""
        self._counted.clear()


def _losses(logits_TE: Tensor, chosen_TE: Tensor, step_E: Tensor, score: str, rows: int) -> Tensor:
    by_name = {"softmax": torch.exp, "sigmoid": torch.sigmoid, "sqrtsoftplus": lambda z: (1 + z.exp()).log().sqrt()}
    scores_TE = by_name[score](logits_TE)
    share_TE = scores_TE / scores_TE.sum(-1, keepdim=True)
    tokens, experts = logits_TE.shape

    def balance(load_E: Tensor, part: slice) -> Tensor:
        return experts * (load_E / load_E.sum() * share_TE[part].mean(0)).sum()

    every, length = slice(None), tokens // rows
    sequences = [slice(row * length, (row + 1) * length) for row in range(rows)]
    of_sequences = torch.stack([balance(chosen_TE[part].sum(0), part) for part in sequences]).mean()
    return (
        FACTORS["balance_weight"] * balance(chosen_TE.sum(0), every)
        + FACTORS["global_weight"] * balance(step_E, every)
        + FACTORS["sequence_weight"] * of_sequences
        + FACTORS["z_weight"] * logits_TE.exp().sum(-1).log().square().mean()
    )


def _one_hot(indices_Tk: Tensor, logits_TE: Tensor) -> Tensor:
    """Return 1 for each expert that a token is sent to and 0 for the others, shape ``(tokens, experts)``."""
    chosen_TE = torch.zeros_like(logits_TE.detach())
    for token, experts in enumerate(indices_Tk.tolist()):
        for expert in experts:
            chosen_TE[token, expert] += 1
    return chosen_TE
