"""Per-sample gradients of a linear last layer that sees tokens: sums over positions of a text.

The gradient of a sample is Σ_t s δ_t ⊗ (h_t, 1) over its counted positions t, where s is 1, or for a mean 1 over their
number. It is not of rank one, so ⟨g, g′⟩ = Σ_t Σ_u s s′ (δ_t·δ_u)(h_t·h_u + 1). There are two forms. With few outputs
the matrix itself is small and is stored (`LastLayerGradients` of one output). With a wide vocabulary only h_t and the
index of the target are stored: δ_t, the softmax minus the target, is computed again from the layer for a block of
positions whenever it is needed, so that memory does not depend on the number of outputs.

Shape suffixes: n samples, m other samples, p positions of all samples, C outputs, d width of the last layer's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.functional.gradients import LastLayerGradients, SampleGradients, last_layer_gradients

#: How the losses of the positions of a sample become one.
Positions = Literal["mean", "sum"]

_BLOCK = 2**23  # outputs in memory at once


@dataclass(frozen=True)
class OutputLayer:
    """A linear last layer under the cross-entropy.

    Args:
        weight: Weight, ``(C, d)``, float32.
        bias: Bias, ``(C,)``; None for none.
        label_smoothing: Share of each target that is spread evenly over the outputs, from 0 to 1.
    """

    weight: Tensor
    bias: Tensor | None
    label_smoothing: float = 0.0

    def delta(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the gradient of each position's cross-entropy by the outputs, float32 of shape ``(p, C)``.

        Args:
            hidden: Inputs of the layer, ``(p, d)``.
            targets: Indices of the wanted outputs, int64 of shape ``(p,)``.
        """
        delta = F.linear(hidden.float(), self.weight, self.bias).softmax(1)
        if self.label_smoothing:
            delta -= self.label_smoothing / delta.shape[1]
        delta[torch.arange(len(delta), device=delta.device), targets] -= 1 - self.label_smoothing
        return delta


@dataclass(frozen=True)
class TokenGradients(SampleGradients):
    """Gradients of n samples as inputs of the layer and targets at their positions, for wide vocabularies.

    Args:
        layer: The layer.
        hidden: Inputs of the layer at all positions, sample after sample, ``(p, d)``.
        targets: Index of the wanted output at each position, int64 of shape ``(p,)``.
        scale: s of each position, ``(p,)``.
        counts: Number of positions of each sample, int64 of shape ``(n,)``.
        length: Most positions that a sample may have, which is the same on all ranks.
    """

    layer: OutputLayer
    hidden: Tensor
    targets: Tensor
    scale: Tensor
    counts: Tensor
    length: int

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def like(self) -> Tensor:
        """A tensor with the number format and the device of the gradients."""
        return self.hidden

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix that :meth:`sum` returns."""
        return len(self.layer.weight), self.hidden.shape[1] + (self.layer.bias is not None)

    def take(self, indices: Tensor | Sequence[int]) -> TokenGradients:
        """Return the gradients at ``indices``, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.counts.device)
        counts, starts = self.counts[chosen], (self.counts.cumsum(0) - self.counts)[chosen]
        within = torch.arange(int(counts.sum()), device=counts.device) - _repeated(counts.cumsum(0) - counts, counts)
        rows = _repeated(starts, counts) + within
        return replace(
            self, hidden=self.hidden[rows], targets=self.targets[rows], scale=self.scale[rows], counts=counts
        )

    def gram(self, other: TokenGradients) -> Tensor:
        """Return the inner products with all other gradients, of shape ``(n, m)``."""
        if len(self.hidden) > len(other.hidden):  # the larger set is passed once for each block of the smaller
            return other.gram(self).T
        products = self.hidden.new_zeros(len(self), len(other))
        sample, other_sample = self._samples(), other._samples()
        for rows, delta in self._blocks():
            for others, other_delta in other._blocks():
                pairs = self._pairs(delta, rows, other, other_delta, others)
                by_other = pairs.new_zeros(len(pairs), len(other)).index_add_(1, other_sample[others], pairs)
                products.index_add_(0, sample[rows], by_other)
        return products

    def sum(self, weights: Tensor | None = None) -> Tensor:
        """Return the weighted sum of the gradients, ``(C, d)`` or, with bias, ``(C, d + 1)``."""
        total = self.hidden.new_zeros(self.shape)
        of_position = None if weights is None else _repeated(weights.to(self.hidden), self.counts)
        for rows, delta in self._blocks():
            weighted = delta if of_position is None else delta * of_position[rows, None]
            total[:, : self.hidden.shape[1]].addmm_(weighted.T, self.hidden[rows])
            if self.layer.bias is not None:
                total[:, -1] += weighted.sum(0)
        return total

    def dot(self, target: Tensor) -> Tensor:
        """Return each gradient's inner product with a matrix of the shape that :meth:`sum` returns, ``(n,)``."""
        target, sample = target.to(self.hidden), self._samples()
        products = self.hidden.new_zeros(len(self))
        for rows, delta in self._blocks():
            outputs = self.hidden[rows] @ target[:, : self.hidden.shape[1]].T
            if self.layer.bias is not None:
                outputs += target[:, -1]
            products.index_add_(0, sample[rows], outputs.mul_(delta).sum(1))
        return products

    def squared_norms(self) -> Tensor:
        """Return the squared norm of each gradient, of shape ``(n,)``."""
        squares = self.hidden.new_zeros(len(self))
        size, first = self._block_size(), 0
        ends = self.counts.cumsum(0).tolist()
        while first < len(self):  # as many whole samples as fit into a block
            start = ends[first - 1] if first else 0
            last = first + 1
            while last < len(self) and ends[last] - start <= size:
                last += 1
            part = self.take(range(first, last))
            squares[first:last] = part.gram(part).diagonal() if last == first + 1 else part._block_norms()
            first = last
        return squares

    def packed(self) -> Tensor:
        """Return inputs, targets and s of each sample's positions as a row, ``(n, length (d + 2))``; s is 0 at none."""
        sample, width = self._samples(), self.hidden.shape[1]
        position = torch.arange(len(sample), device=sample.device)
        position -= _repeated(self.counts.cumsum(0) - self.counts, self.counts)
        rows = self.hidden.new_zeros(len(self), self.length, width + 2)
        rows[sample, position] = torch.cat([self.hidden, self.targets[:, None], self.scale[:, None]], dim=1)
        return rows.flatten(1)

    def unpacked(self, rows: Tensor) -> TokenGradients:
        """Return the gradients of rows that :meth:`packed` returned, in the number format of the rows."""
        table = rows.unflatten(1, (self.length, self.hidden.shape[1] + 2))
        is_position = table[..., -1] > 0
        flat = table[is_position]
        counts = is_position.sum(1)
        return replace(self, hidden=flat[:, :-2], targets=flat[:, -2].long(), scale=flat[:, -1], counts=counts)

    def _samples(self) -> Tensor:
        """Return the sample of each position, ``(p,)``."""
        return _repeated(torch.arange(len(self), device=self.counts.device), self.counts)

    def _block_size(self) -> int:
        return max(1, _BLOCK // len(self.layer.weight))

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield positions and their s δ, ``(block, C)``."""
        size = self._block_size()
        for start in range(0, len(self.hidden), size):
            rows = slice(start, start + size)
            delta = self.layer.delta(self.hidden[rows], self.targets[rows]).to(self.hidden)
            yield rows, delta.mul_(self.scale[rows, None])

    def _block_norms(self) -> Tensor:
        """Return the squared norms of samples whose positions are a single block."""
        sample, norms = self._samples(), self.hidden.new_zeros(len(self))
        for rows, delta in self._blocks():
            pairs = self._pairs(delta, rows, self, delta, rows)
            norms.index_add_(0, sample, pairs.mul_(sample[:, None] == sample).sum(1))
        return norms

    def _pairs(self, delta: Tensor, rows: slice, other: TokenGradients, other_delta: Tensor, others: slice) -> Tensor:
        """Return (s δ_t·s′ δ_u)(h_t·h_u + 1) for each two positions."""
        hidden = (self.hidden[rows] @ other.hidden[others].T).add_(float(self.layer.bias is not None))
        return hidden.mul_(delta @ other_delta.T)


def token_gradients(
    layer: OutputLayer, hidden: Tensor, targets: Tensor, counted: Tensor, positions: Positions
) -> LastLayerGradients | TokenGradients:
    """Return the gradient of each sample's own loss, the mean or sum of the cross-entropy over its counted positions.

    Args:
        layer: The last layer.
        hidden: Its inputs, ``(n, length, d)``.
        targets: Index of the wanted output at each position, int64 of shape ``(n, length)``; any number where it does
            not count.
        counted: Which positions count, bool of the same shape. A sample without any has a gradient of 0.
        positions: Whether a sample's loss is the mean or the sum over its positions.

    Returns:
        The form that takes fewer numbers for a sample of full length, the same for all sets of a model: full matrices
        as rows, whose :meth:`sum` has one row too, or `TokenGradients`.

    Raises:
        UserError: If a target is not an index of the outputs.
    """
    n_outputs, width = layer.weight.shape
    found, of_position = targets[counted], hidden[counted].float()
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) < n_outputs:
        raise UserError(
            f"targets runs from {int(found.min())} to {int(found.max())}, but the model has {n_outputs} outputs; use "
            "data of the model's vocabulary or tags."
        )
    counts = counted.sum(1)
    share = torch.ones(len(counts)) if positions == "sum" else 1 / counts.clamp(min=1).float()
    scale = _repeated(share.to(of_position), counts)
    n_full, n_factors = n_outputs * (width + 1), hidden.shape[1] * (n_outputs + width)
    if n_full > n_factors:
        return TokenGradients(layer, of_position, found, scale, counts, hidden.shape[1])
    outputs = F.linear(of_position, layer.weight, layer.bias)
    single = last_layer_gradients(outputs, of_position, found, label_smoothing=layer.label_smoothing)
    right = of_position if layer.bias is None else F.pad(of_position, (0, 1), value=1.0)
    full = of_position.new_zeros(len(counts), n_outputs * right.shape[1])
    for sample, (delta, inputs) in enumerate(
        zip((single.delta * scale[:, None]).split(counts.tolist()), right.split(counts.tolist()), strict=True)
    ):
        full[sample] = (delta.T @ inputs).flatten()
    return LastLayerGradients(full.new_ones(len(full), 1), full, bias=False)


def concatenated(parts: Sequence[SampleGradients]) -> SampleGradients:
    """Return the gradients of several sets of one model, one or more."""
    first = parts[0]
    if isinstance(first, TokenGradients):
        names = ("hidden", "targets", "scale", "counts")
        hidden, targets, scale, counts = (torch.cat([getattr(part, name) for part in parts]) for name in names)
        return TokenGradients(first.layer, hidden, targets, scale, counts, first.length)
    assert isinstance(first, LastLayerGradients)
    delta, hidden = (torch.cat([getattr(part, name) for part in parts]) for name in ("delta", "hidden"))
    return LastLayerGradients(delta, hidden, first.bias)


def _repeated(values: Tensor, counts: Tensor) -> Tensor:
    return values.repeat_interleave(counts)
