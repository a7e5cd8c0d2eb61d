"""Loads of experts, summed over batches and ranks, and measures of their balance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_core.lightning.step_logging import sum_over_ranks
from lit_moe.functional.routing import dead_experts, load_entropy, max_load, min_load, mri
from lit_moe.nn import RouterStats

_LOSSES = ("balance_loss", "raw_balance_loss", "z_loss", "raw_z_loss")


@dataclass
class LayerLoad:
    """Loads and losses of one layer's router, summed over batches.

    Args:
        n_experts: Routed experts of the layer.
        differs_in_training: Whether the router chooses other experts in training than in inference, so that the
            inference routing is measured as well.
    """

    n_experts: int
    differs_in_training: bool = False
    counts: Tensor | None = None
    raw_counts: Tensor | None = None
    tokens: int | Tensor = 0
    batches: int = 0
    losses: dict[str, Tensor] = field(default_factory=dict)

    def add(self, stats: RouterStats) -> None:
        """Add a forward pass."""
        # out of place: the first counts belong to the layer
        self.counts = stats.counts if self.counts is None else self.counts + stats.counts
        self.raw_counts = stats.raw_counts if self.raw_counts is None else self.raw_counts + stats.raw_counts
        for name in _LOSSES:
            loss = getattr(stats, name)
            if loss is not None:
                self.losses[name] = self.losses.get(name, 0.0) + loss.detach()
        self.tokens = self.tokens + stats.tokens
        self.batches += 1

    def pack(self) -> Tensor:
        """Return all sums as one vector on the CPU; its length depends on the number of experts alone."""
        none = torch.zeros(self.n_experts)
        losses = [float(self.losses.get(name, 0.0)) for name in _LOSSES]
        present = [float(name in self.losses) for name in _LOSSES]
        counts = [none if counts is None else counts.cpu() for counts in (self.counts, self.raw_counts)]
        scalars = torch.tensor([*losses, *present, float(self.tokens), self.batches], dtype=torch.float64)
        return torch.cat([*counts, scalars])

    def unpack(self, packed: Tensor) -> None:
        """Replace the sums by those over all ranks.

        Args:
            packed: Sums over the ranks, in the order of `pack`.
        """
        sizes = [self.n_experts, self.n_experts, len(_LOSSES), len(_LOSSES), 2]
        counts, raw_counts, losses, present, rest = packed.split(sizes)
        self.counts, self.raw_counts = counts.round().long(), raw_counts.round().long()
        self.losses = {name: loss for name, loss, has in zip(_LOSSES, losses, present, strict=True) if has}
        self.tokens, self.batches = round(rest[0].item()), round(rest[1].item())

    def shares(self) -> list[float]:
        """Return each expert's share of the tokens, from 0 to 1; NaN if the layer saw no token."""
        assert self.counts is not None
        return (self.counts / torch.as_tensor(self.tokens, device=self.counts.device)).tolist()


def reduce_over_ranks(trainer: Trainer, loads: Sequence[LayerLoad]) -> None:
    """Sum loads over all ranks, in one collective for all of them.

    Args:
        trainer: Trainer of the run.
        loads: The same layers in the same order on each rank; changed in place.
    """
    if not loads:
        return
    packed = [load.pack() for load in loads]
    sums = sum_over_ranks(trainer, torch.cat(packed))
    for load, part in zip(loads, sums.split([len(vector) for vector in packed]), strict=True):
        load.unpack(part)


def measures(loads: Sequence[LayerLoad], where: str, *, training: bool) -> dict[str, float]:
    """Return the measures of balance of all layers by metric key.

    Args:
        loads: Sums over the ranks, layer by layer.
        where: Beginning of each key, such as ``train`` or ``val/austen``.
        training: Whether the inference routing and the losses are included.

    Returns:
        Values by key, without those of layers that saw no token.
    """
    values: dict[str, float] = {}
    for index, load in enumerate(loads):
        if load.counts is None or load.raw_counts is None or not int(load.tokens):
            continue
        layer = {
            "mri": mri(load.counts, int(load.tokens)),
            "load_entropy": load_entropy(load.counts),
            "dead_experts": dead_experts(load.counts),
            "max_load": max_load(load.counts),
            "min_load": min_load(load.counts),
        }
        if training and load.differs_in_training:
            layer["raw_mri"] = mri(load.raw_counts, int(load.tokens))
        if training:
            layer |= {name: loss / load.batches for name, loss in load.losses.items()}
        values |= {f"{where}/router/{name}/layer_{index:02d}": float(value) for name, value in layer.items()}
    for name in ("mri", "raw_mri"):
        layers = [value for key, value in values.items() if key.startswith(f"{where}/router/{name}/")]
        if layers:
            values[f"{where}/router/{name}/mean"] = sum(layers) / len(layers)
    return values
