"""How far each scope of the balance loss is from the loss of the whole batch, under gradient accumulation.

    python benchmarks/balance_scope.py

A small granular model learns bytes of English prose and Python code. Then the balance loss of whole batches is
compared with that of their micro-batches, summed as an optimizer step sums them. The distance is |g - g_whole| over
|g_whole| of the gradient g of all routers' weights, and that of the loss likewise; both are medians over batches.
"""

from __future__ import annotations

import statistics
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from lit_core.corpora import Austen, PythonStdlib
from lit_moe.nn import Decoder, DecoderConfig, MoEFeedForward, PenaltyRouter, auxiliary_losses, step_routers

LENGTH, TRAINING_STEPS, BATCHES = 128, 100, 10
Scope = Literal["micro_batch", "global_batch"]


def read_bytes() -> Tensor:
    """Return sequences of both texts in turn, ``(sequences, LENGTH)``."""
    parts = []
    for corpus in (Austen(), PythonStdlib()):
        text = "".join(document.text for document in islice(corpus.documents(), 8)).encode()
        parts.append(torch.tensor(list(text[: 380 * LENGTH])).view(-1, LENGTH))
    return torch.stack(parts, 1).flatten(0, 1)


def draw(rows: Tensor, sequences: int, generator: torch.Generator) -> Tensor:
    """Return random sequences."""
    return rows[torch.randint(len(rows), (sequences,), generator=generator)]


def train(rows: Tensor, generator: torch.Generator) -> Decoder:
    """Return a decoder that has learnt for a while under the balance loss of micro-batches."""
    torch.manual_seed(0)
    config = DecoderConfig(256, n_layers=3, d_model=64, n_heads=4, d_ff=128, feed_forward="granular")
    decoder = Decoder(config, PenaltyRouter)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    for _ in range(TRAINING_STEPS):
        ids = draw(rows, 16, generator)
        logits = decoder(ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:]) + auxiliary_losses(decoder)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return decoder


def balance(decoder: Decoder, micro_batches: list[Tensor], scope: Scope) -> tuple[float, Tensor]:
    """Return the mean balance loss of micro-batches and its gradient by all routers' weights."""
    layers = [layer for layer in decoder.modules() if isinstance(layer, MoEFeedForward)]
    for layer in layers:
        layer.router = PenaltyRouter(31, 3, balance_weight=1.0, z_weight=0.0, scope=scope)
    decoder.zero_grad()
    total = 0.0
    for ids in micro_batches:
        decoder.hidden(ids)
        loss = auxiliary_losses(decoder) / len(micro_batches)
        loss.backward()
        total += loss.item()
    step_routers(decoder)
    gradients = [layer.gate.weight.grad for layer in layers if layer.gate.weight.grad is not None]
    return total, torch.cat([gradient.flatten() for gradient in gradients])


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    rows, generator = read_bytes(), torch.Generator().manual_seed(0)
    decoder = train(rows, generator)
    print("| micro-batches | tokens in each | scope | distance of the gradient | of the loss |")
    print("|---|---|---|---|---|")
    for sequences in (2, 8):
        for number in (4, 16):
            found: dict[Scope, list[tuple[float, float]]] = {"micro_batch": [], "global_batch": []}
            for _ in range(BATCHES):
                ids = draw(rows, number * sequences, generator)
                loss, gradient = balance(decoder, [ids], "micro_batch")
                for scope, distances in found.items():
                    other_loss, other = balance(decoder, list(ids.split(sequences)), scope)
                    distances.append((float((other - gradient).norm() / gradient.norm()), abs(other_loss / loss - 1)))
            for scope, distances in found.items():
                by_gradient, by_loss = (statistics.median(values) for values in zip(*distances, strict=True))
                print(f"| {number} | {sequences * LENGTH} | {scope} | {by_gradient:.3f} | {by_loss:.4f} |")


if __name__ == "__main__":
    main()
