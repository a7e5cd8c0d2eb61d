"""Whole training steps of mixtures of experts against the dense decoder of equal FLOPs, as ratios.

    python benchmarks/train_step.py --output train_step.json

A step is forward, loss, backward, clipping, fused AdamW and release of the gradients, in a bare loop without trainer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from layers import Mismatch
from side_by_side import (
    Contender,
    OtherWork,
    arguments,
    cell,
    finish,
    markdown,
    measure,
    new_result,
    precisions,
    progress,
    ratios,
)
from torch import Tensor

from lit_moe.module import MoELanguageModel
from lit_moe.nn import DecoderConfig, PenaltyRouter, RouterCallable, SinkhornRouter, auxiliary_losses, moe_layers

MODELS: dict[str, tuple[str, RouterCallable]] = {
    "dense": ("dense", SinkhornRouter),
    "switch, Sinkhorn": ("switch", SinkhornRouter),
    "switch, penalty": ("switch", PenaltyRouter),
    "granular, Sinkhorn": ("granular", SinkhornRouter),
    "granular, penalty": ("granular", PenaltyRouter),
}
PRECISIONS = ("fp32", "bf16 autocast")


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        n_layers: Decoder layers.
        d_model: Width of the residual stream.
        d_ff: Hidden width of the dense layer.
        vocab_size: Number of token ids.
        sequences: Sequences per step.
        length: Tokens per sequence.
        precision: fp32 or bf16 autocast, with weights in float32.
    """

    n_layers: int
    d_model: int
    d_ff: int
    vocab_size: int
    sequences: int
    length: int
    precision: str

    def config(self, feed_forward: str) -> DecoderConfig:
        """Return the decoder's shape for a preset."""
        return DecoderConfig(
            self.vocab_size,
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.d_model // 64,
            d_ff=self.d_ff,
            max_seq_len=self.length,
            feed_forward=feed_forward,  # type: ignore[arg-type]
        )


def cases(quick: bool) -> list[Case]:
    """Return the rows of the table, the first of the quickstart; all but the quick ones have 4,096 tokens a step."""
    large = [(3, 128, 384, 2048, 32, 128), (4, 256, 704, 4096, 8, 512), (4, 512, 1408, 8192, 8, 512)]
    sizes = [(2, 64, 128, 256, 2, 64)] if quick else large
    return [Case(*size, precision) for precision in precisions(PRECISIONS, quick) for size in sizes]


class Training:
    """A model with its optimizer.

    Args:
        case: Shape and precision.
        feed_forward: Preset of the feed-forward layers.
        router: Makes the routers of a mixture.
    """

    def __init__(self, case: Case, feed_forward: str, router: RouterCallable) -> None:
        self.autocast = case.precision != "fp32"
        # AdamW's fused form takes one pass over the many weights of a mixture.
        optimizer = partial(torch.optim.AdamW, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        self.model = MoELanguageModel(case.config(feed_forward), router, optimizer)
        self.optimizer: torch.optim.Optimizer = self.model.configure_optimizers()

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of a batch, auxiliary losses included."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            return self.model.training_step(batch, 0)

    def step(self, batch: dict[str, Tensor]) -> None:
        """Take one training step."""
        self.loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def draw(case: Case) -> dict[str, Tensor]:
    """Return random tokens and their successors as labels, each of shape ``(sequences, length)``."""
    tokens = torch.randint(case.vocab_size, (case.sequences, case.length + 1))
    return {"input_ids": tokens[:, :-1], "labels": tokens[:, 1:]}


def check(name: str, training: Training, dense: Training, case: Case) -> None:
    """See that a model costs what the dense one costs, starts where it should and trains all of its weights.

    Args:
        name: Its name in the table.
        training: The model.
        dense: The dense one.
        case: Shape of both.

    Raises:
        Mismatch: If not.
    """
    mine, theirs = (t.model.decoder.flops_per_token(case.length) for t in (training, dense))
    routers = sum(2 * layer.gate.weight.numel() for layer in moe_layers(training.model).values())
    if mine - theirs != routers:
        raise Mismatch(f"{name} costs {mine} operations per token, dense {theirs}; the routers account for {routers}.")
    loss = training.loss(draw(case))
    auxiliary = auxiliary_losses(training.model).item()
    start = loss.item() - auxiliary
    if not abs(start - math.log(case.vocab_size)) < 0.5:
        raise Mismatch(f"{name} starts at a loss of {start:.3f}, not near {math.log(case.vocab_size):.3f}.")
    if (auxiliary > 0) != ("penalty" in name):
        raise Mismatch(f"{name} has auxiliary losses of {auxiliary}.")
    loss.backward()
    idle = [n for n, p in training.model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    if idle:
        raise Mismatch(f"{name} gives no finite gradient to {idle[0]}.")
    training.model.zero_grad(set_to_none=True)


def run(case: Case, rounds: int, warm_up: int) -> dict[str, Any]:
    """Build, check and time one case; return its ratios and what else belongs in the table."""
    trainings = {name: Training(case, *model) for name, model in MODELS.items()}
    for name, training in trainings.items():
        check(name, training, trainings["dense"], case)
    contenders = [Contender(name, training.step, partial(draw, case)) for name, training in trainings.items()]
    others = OtherWork()
    seconds = measure(contenders, rounds, warm_up)
    return {
        **vars(case),
        "parameters": {name: t.model.decoder.parameter_counts()._asdict() for name, t in trainings.items()},
        "ratios": ratios(seconds, "dense"),
        "seconds": seconds,
        "cores_busy_with_others": others.cores(),
    }


def table(result: dict[str, Any]) -> str:
    """Return the Markdown table of a result."""
    names = [name for name in MODELS if name != "dense"]
    rows = []
    for case in result["cases"]:
        measured = case["ratios"]
        size = f"{case['precision']}, {case['n_layers']}, {case['d_model']}, {case['d_ff']}, {case['vocab_size']}"
        tokens = f"{case['sequences']} × {case['length']}"
        dense = f"{measured['dense']['milliseconds']:.4g}"
        rows.append([size, tokens, dense, *(cell(measured[name]) for name in names)])
    return markdown(["precision, layers, d_model, d_ff, vocabulary", "tokens", "dense ms", *names], rows)


def main() -> None:
    """Time all cases, print the table and write the numbers."""
    options = arguments(__doc__)
    torch.manual_seed(0)
    result, todo = new_result("train_step", options), cases(options.quick)
    for index, case in enumerate(todo, start=1):
        progress(
            f"[{index}/{len(todo)}] {case.precision}, d_model {case.d_model}, {case.sequences} × {case.length} tokens"
        )
        result["cases"].append(run(case, result["rounds"], result["warm_up"]))
    finish(result, options.output)
    print(table(result))


if __name__ == "__main__":
    main()
