"""Metrics of one layer's routing against that of a reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_moe.metrics import CoactivationOverlap, ContinualRouterSaturation, ContinualVocabularySpecialization


class LayerDrift:
    """The metrics of one layer on one source.

    Args:
        n_experts: Number of routed experts.
        top_k: Experts per token.
        vocab_size: Number of token ids; None leaves vocabulary specialization out.
        min_occurrences: Least number of occurrences of an id in the average per id.
        device: Device of the counts.
    """

    def __init__(
        self, n_experts: int, top_k: int, vocab_size: int | None, min_occurrences: int, device: torch.device | str
    ) -> None:
        shape = n_experts, top_k
        self.chance = top_k / n_experts
        self.saturation = ContinualRouterSaturation(*shape).to(device)
        self.vocabulary: ContinualVocabularySpecialization | None = None
        if vocab_size is not None:
            self.vocabulary = ContinualVocabularySpecialization(*shape, vocab_size, min_occurrences).to(device)
        self.pairs = CoactivationOverlap(*shape).to(device) if top_k > 1 else None

    def add(self, reference_Tk: Tensor, indices_Tk: Tensor, ids_T: Tensor | None, mask_T: Tensor | None) -> None:
        """Add a batch.

        Args:
            reference_Tk: Experts chosen by the reference, shape ``(tokens, k)``.
            indices_Tk: Experts chosen by the model, of the same shape.
            ids_T: Token ids; None leaves vocabulary specialization as it is.
            mask_T: True for tokens that count; None for all.
        """
        if mask_T is not None:
            reference_Tk, indices_Tk = reference_Tk[mask_T], indices_Tk[mask_T]
            ids_T = None if ids_T is None else ids_T[mask_T]
        self.saturation.update(reference_Tk, indices_Tk)
        if self.pairs is not None:
            self.pairs.update(reference_Tk, indices_Tk)
        if self.vocabulary is not None and ids_T is not None:
            self.vocabulary.update(ids_T, reference_Tk, indices_Tk)

    def compute(self) -> tuple[dict[str, float], list[float]]:
        """Return the values over all devices, raw and above chance, and the co-activation overlap of each expert.

        Values that are not defined are left out; without co-activation the list is empty.
        """
        measured = {"crs": (self.saturation.compute(), self.chance)}
        if self.vocabulary is not None:
            per_occurrence, per_id = self.vocabulary.compute()
            measured |= {"cvs_per_occurrence": (per_occurrence, self.chance), "cvs_per_id": (per_id, self.chance)}
        overlaps: list[float] = []
        if self.pairs is not None:
            overlap, chance, by_expert = self.pairs.compute()
            measured["coactivation"] = (overlap, float(chance))
            overlaps = by_expert.tolist()
        values: dict[str, float] = {}
        for name, (value, chance_level) in measured.items():
            if not value.isnan():
                values |= {name: float(value), f"{name}_above_chance": float(value) - chance_level}
        return values, overlaps


def by_key(layers: Sequence[dict[str, float]], where: str) -> dict[str, float]:
    """Return the values of all layers by metric key, with the mean over the layers of each.

    Args:
        layers: Values by name, layer by layer.
        where: Beginning of each key, such as ``val/austen``.
    """
    keyed: dict[str, float] = {}
    for name in dict.fromkeys(name for values in layers for name in values):
        by_layer = {f"layer_{index:02d}": values[name] for index, values in enumerate(layers) if name in values}
        keyed |= {f"{where}/router/{name}/{layer}": value for layer, value in by_layer.items()}
        keyed[f"{where}/router/{name}/mean"] = sum(by_layer.values()) / len(by_layer)
    return keyed
