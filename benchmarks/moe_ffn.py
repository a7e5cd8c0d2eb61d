"""Mixture-of-experts feed-forward layers against a dense layer of equal FLOPs: forward and backward, as ratios.

    python benchmarks/moe_ffn.py --output moe_ffn.json

Ours, Hugging Face's Mixtral block and litgpt's LLaMAMoE start from the same weights and are compared with a plain
formula before they are timed. A library that is not installed is left out with a note.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from layers import Layer, Mismatch, Mixture, Weights, check, dense, huggingface, litgpt, ours
from products import Products
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

from lit_moe.nn import preset

OURS = ("ours, loop", "ours, grouped_mm")
PEERS = ("Hugging Face, eager", "Hugging Face, grouped_mm", "litgpt")
PRODUCTS = "products alone"
SIZES = ((256, 704, 4096), (512, 1408, 4096), (1024, 2816, 2048))
QUICK_SIZES = ((64, 128, 256),)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        preset: switch or granular.
        d_model: Width of inputs and outputs.
        d_ff: Hidden width of the dense layer.
        tokens: Tokens per step, a multiple of 8.
        dtype: fp32 or bf16, of weights and inputs.
    """

    preset: str
    d_model: int
    d_ff: int
    tokens: int
    dtype: str

    @property
    def shape(self) -> Mixture:
        """Shape of our mixture."""
        config = preset(self.preset, self.d_ff)  # type: ignore[arg-type]
        assert config is not None
        return Mixture(self.d_model, config.n_experts, config.top_k, config.expert_width, config.n_shared)


def cases(quick: bool) -> list[Case]:
    """Return the rows of the table."""
    sizes = QUICK_SIZES if quick else SIZES
    dtypes = precisions(list(DTYPES), quick)
    return [Case(name, *size, dtype) for dtype in dtypes for name in ("switch", "granular") for size in sizes]


def build(case: Case) -> tuple[list[Layer], Products, dict[str, str]]:
    """Build the contenders of a case, checked.

    Returns:
        Layers; the bare products; what was left out, by name, and why.

    Raises:
        Mismatch: If one does not compute what it should.
    """
    dtype, shape = DTYPES[case.dtype], case.shape
    weights, bare = Weights.draw(shape), shape.without_shared()
    bare_weights = Weights.draw(bare) if bare != shape else weights
    makers: dict[str, Callable[[], Layer]] = {
        OURS[0]: lambda: ours(shape, weights, "loop"),
        OURS[1]: lambda: ours(shape, weights, "grouped_mm"),
        PEERS[0]: lambda: huggingface(bare, bare_weights, "eager"),
        PEERS[1]: lambda: huggingface(bare, bare_weights, "grouped_mm"),
        PEERS[2]: lambda: litgpt(shape, weights),
    }
    layers, left_out = [dense(case.d_model, case.d_ff)], {}
    for name, make in makers.items():
        try:
            layers.append(make())
        except ImportError as error:
            left_out[name] = str(error)
    for layer in layers:
        if layer.shape.active_width != case.d_ff:
            raise Mismatch(f"{layer.name} of shape {layer.shape} has not the FLOPs of a dense layer of {case.d_ff}.")
        layer.module.to(dtype)
    check(layers, dtype)
    return layers, Products(shape, weights, case.tokens, dtype), left_out


def contender(layer: Layer, draw: Callable[[], Tensor]) -> Contender:
    """Return a layer's step: forward, backward, release of the gradients, so that none is alive in another's turn.

    Args:
        layer: The layer.
        draw: Makes a random tensor of the shape of its input.
    """

    def prepare() -> tuple[Tensor, Tensor]:
        return draw().requires_grad_(), draw()

    def step(inputs: tuple[Tensor, Tensor]) -> None:
        x_BSD, grad_BSD = inputs
        layer.module(x_BSD).backward(grad_BSD)
        layer.module.zero_grad(set_to_none=True)
        x_BSD.grad = None

    return Contender(layer.name, step, prepare)


def run(case: Case, rounds: int, warm_up: int) -> dict[str, Any]:
    """Build, check and time one case; return its ratios and what else belongs in the table."""
    layers, products, left_out = build(case)
    loads: list[float] = []

    def draw() -> Tensor:
        return torch.randn(8, case.tokens // 8, case.d_model).to(DTYPES[case.dtype])

    def counts() -> list[int]:
        found = products.counts(draw().flatten(0, 1))
        loads.append(max(found) * len(found) / sum(found))
        return found

    contenders = [contender(layer, draw) for layer in layers]
    others = OtherWork()
    seconds = measure([*contenders, Contender(PRODUCTS, products.run, counts)], rounds, warm_up)
    return {
        **vars(case),
        "shape": str(case.shape),
        "shape_without_shared": str(case.shape.without_shared()),
        "largest_expert_over_mean": sum(loads) / len(loads),
        "ratios": ratios(seconds, "dense"),
        "seconds": seconds,
        "cores_busy_with_others": others.cores(),
        "left_out": left_out,
    }


def table(result: dict[str, Any]) -> str:
    """Return the Markdown table of a result with its legend."""
    names = (*OURS, *PEERS, PRODUCTS)
    header = ["preset, d_model, d_ff, tokens", "dense ms", *names]
    blocks = []
    for dtype in DTYPES:
        rows = []
        for case in (case for case in result["cases"] if case["dtype"] == dtype):
            measured = case["ratios"]
            row = [f"{case['preset']}, {case['d_model']}, {case['d_ff']}, {case['tokens']}"]
            row.append(f"{measured['dense']['milliseconds']:.4g}")
            best = min((name for name in (*OURS, *PEERS) if name in measured), key=lambda name: measured[name]["ratio"])
            row += [cell(measured.get(name), bold=name == best) for name in names]
            rows.append(row)
        blocks.append(f"{dtype}:\n\n" + markdown(header, rows))
    notes = {f"{name} is left out: {why}" for case in result["cases"] for name, why in case["left_out"].items()}
    return "\n\n".join([*blocks, *sorted(notes)])


def main() -> None:
    """Time all cases, print the table and write the numbers."""
    options = arguments(__doc__)
    torch.manual_seed(0)
    result, todo = new_result("moe_ffn", options), cases(options.quick)
    for index, case in enumerate(todo, start=1):
        progress(f"[{index}/{len(todo)}] {case.dtype} {case.preset}, d_model {case.d_model}, {case.tokens} tokens")
        result["cases"].append(run(case, result["rounds"], result["warm_up"]))
    finish(result, options.output)
    print(table(result))


if __name__ == "__main__":
    main()
