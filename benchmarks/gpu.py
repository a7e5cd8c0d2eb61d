"""What only a GPU can show, on one device: the `gpu` tests, layers beside their peers, a step of 1 to 3 B parameters.

    python benchmarks/gpu.py --output gpu.json

A part that would end after the limit of minutes is not begun, and the table says so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from layers import Layer, Mixture, Weights, check, dense, huggingface, ours
from side_by_side import Contender, cell, finish, markdown, measure, new_result, progress, ratios
from torch import Tensor

from lit_core.errors import reason_of
from lit_moe.module import MoELanguageModel
from lit_moe.nn import DecoderConfig, PenaltyRouter, preset
from lit_moe.plan.costs import describe, optimizer_memory, training_flops
from lit_moe.plan.layout import Layout
from lit_moe.plan.memory import StepMemory, total

#: Width of the model, hidden width of the dense layer, tokens; presets of mixtures have the same FLOPs.
LAYERS = ((1024, 2816, 16384), (2048, 5632, 16384))
#: Layers, width, hidden width and vocabulary of a granular mixture: 3.4, 1.6 and 1.1 B parameters, and one to try with.
STEPS = ((12, 2048, 5632, 32768), (12, 1408, 3840, 32768), (12, 1152, 3072, 32768))
QUICK_LAYER, QUICK_STEP = (64, 128, 256), (2, 64, 128, 256)
PEERS = ("grouped_mm", "deepgemm", "sonicmoe")
#: Share of a device's memory that the plan of a step may take.
ROOM = 0.85


def gpu_tests(device: str, seconds: float, quick: bool) -> dict[str, Any]:
    """Run the tests that need a GPU.

    Args:
        device: cuda, or cpu, where nothing is found to run.
        seconds: Time after which they are ended.
        quick: Whether only one file is looked through.

    Returns:
        Numbers of tests by outcome, and names of those that did not pass.
    """
    place = "tests/moe/test_on_gpu.py" if quick else "tests"
    with TemporaryDirectory() as folder:
        report = Path(folder, "tests.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}", place, *(["--collect-only"] if device == "cpu" else [])]
        root = Path(__file__).parents[1]
        try:
            ended = subprocess.run(command, cwd=root, timeout=seconds, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            return {"ended": f"after {seconds:.0f} s, before all had run"}
        if not report.exists():
            return {"ended": f"with code {ended.returncode}: {ended.stdout[-500:]}"}
        cases = list(ElementTree.parse(report).iter("testcase"))
    outcomes: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for case in cases:
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        outcomes[outcome].append(f"{case.get('classname')}.{case.get('name')}")
    return {name: len(found) for name, found in outcomes.items()} | {
        "not passed": outcomes["failed"] + outcomes["skipped"]
    }


class Waiting:
    """A step that is over when the device is.

    Args:
        device: cuda or cpu.
        step: The step.
    """

    def __init__(self, device: str, step: Callable[[Any], Any]) -> None:
        self.device, self.step = device, step

    def __call__(self, inputs: Any) -> float:
        """Return the seconds of the step."""
        self._wait()
        start = time.perf_counter()
        self.step(inputs)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def product_speed(device: str, size: int) -> float:
    """Return the FLOP/s of one large product of square matrices in bfloat16, the best of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    multiply = Waiting(device, lambda _: torch.mm(a, b))
    multiply(None)
    return 2 * size**3 / min(multiply(None) for _ in range(10))


def layer_case(device: str, name: str, size: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """Time forward and backward pass of mixtures beside the dense layer of equal FLOPs, in bfloat16.

    Raises:
        Mismatch: If one does not compute what it should.
    """
    d_model, d_ff, tokens = size
    config = preset(name, d_ff)  # type: ignore[arg-type]
    assert config is not None
    shape = Mixture(d_model, config.n_experts, config.top_k, config.expert_width, config.n_shared)
    weights, bare = Weights.draw(shape), shape.without_shared()
    bare_weights = Weights.draw(bare) if bare != shape else weights
    layers = [dense(d_model, d_ff), ours(shape, weights, "loop"), ours(shape, weights, "grouped_mm")]
    left_out = {}
    for layer in layers:
        layer.module.to(device, torch.bfloat16)
    check(layers, torch.bfloat16, 4, device)
    for kind in PEERS:
        try:
            peer = huggingface(bare, bare_weights, kind)
            peer.module.to(device, torch.bfloat16)
            check([peer], torch.bfloat16, 4, device)
            layers.append(peer)
        except Exception as error:  # no transformers, no such implementation, or no kernels for it here
            left_out[f"Hugging Face, {kind}"] = reason_of(error, 200)
    x, grad = (torch.randn(8, tokens // 8, d_model, device=device, dtype=torch.bfloat16) for _ in range(2))

    def step(layer: Layer, _: None) -> None:
        layer.module(x.requires_grad_()).backward(grad)
        layer.module.zero_grad(set_to_none=True)
        x.grad = None

    contenders = [Contender(layer.name, Waiting(device, partial(step, layer)), lambda: None) for layer in layers]
    seconds = measure(contenders, rounds, warm_up=2)
    return {
        "preset": name,
        "size": size,
        "ratios": ratios(seconds, "dense"),
        "seconds": seconds,
        "left_out": left_out,
    }


def planned(size: tuple[int, int, int, int], layout: Layout) -> tuple[MoELanguageModel, float]:
    """Return a granular mixture on the meta device, and the bytes that a step of it takes by its plan."""
    n_layers, d_model, d_ff, vocab_size = size
    shape = {"n_layers": n_layers, "d_model": d_model, "d_ff": d_ff, "max_seq_len": layout.sequence_length}
    config = DecoderConfig(vocab_size, **shape, n_heads=d_model // 64, feed_forward="granular")
    optimizer = partial(torch.optim.AdamW, lr=1e-4, fused=True)
    with torch.device("meta"):
        model = MoELanguageModel(config, PenaltyRouter, optimizer)
    moments = StepMemory(describe(model.decoder, layout), layout, *optimizer_memory(model, layout)).moments
    return model, max(map(total, moments.values()))


def training_step(device: str, sizes: tuple[tuple[int, int, int, int], ...], layout: Layout, steps: int) -> Any:
    """Train the largest of several mixtures that fits, by its plan.

    Returns:
        Its speed and memory, or None if none fits.
    """
    room = ROOM * torch.cuda.get_device_properties(0).total_memory if device == "cuda" else float("inf")
    for size in sizes:
        model, memory = planned(size, layout)
        if memory <= room:
            break
    else:
        return None
    decoder: Any = model.to_empty(device=device).decoder
    decoder.reset_parameters()
    optimizer: Any = model.configure_optimizers()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def step(batch: dict[str, Tensor]) -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = model.training_step(batch, 0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    shape = (layout.micro_batch_size, layout.sequence_length + 1)
    tokens = torch.randint(size[3], shape, device=device)
    timed = Waiting(device, step)
    seconds = [timed({"input_ids": tokens[:, :-1], "labels": tokens[:, 1:]}) for _ in range(steps + 2)][2:]
    middle = sorted(seconds)[len(seconds) // 2]
    speed = product_speed(device, 8192 if device == "cuda" else 256)
    return {
        "size": size,
        "parameters": decoder.parameter_counts()._asdict(),
        "tokens": layout.tokens,
        "seconds": seconds,
        "tokens_per_second": layout.tokens / middle,
        "flops_per_second": training_flops(describe(decoder, layout), layout)[0] * layout.tokens / middle,
        "product_flops_per_second": speed,
        "memory_planned": memory,
        "memory_measured": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }


def table(result: dict[str, Any]) -> str:
    """Return what was found in Markdown."""
    parts = []
    for name, outcome in result.get("tests", {}).items():
        if name != "not passed":
            parts.append(f"- tests, {name}: {outcome}")
    parts += [f"- did not pass: {name}" for name in result.get("tests", {}).get("not passed", [])]
    if result["cases"]:
        names = sorted({name for case in result["cases"] for name in case["ratios"]} - {"dense"})
        rows = [
            [
                f"{case['preset']}, {', '.join(map(str, case['size']))}",
                f"{case['ratios']['dense']['milliseconds']:.4g}",
                *(cell(case["ratios"].get(name)) for name in names),
            ]
            for case in result["cases"]
        ]
        parts.append("\n" + markdown(["bf16: preset, d_model, d_ff, tokens", "dense ms", *names], rows) + "\n")
    if step := result.get("step"):
        share = step["flops_per_second"] / step["product_flops_per_second"]
        measured, planned_bytes = step["memory_measured"], step["memory_planned"]
        memory = f"{planned_bytes / 2**30:.2f} GiB by the plan"
        if measured is not None:
            memory += f", {measured / 2**30:.2f} GiB measured, {measured / planned_bytes:.2f} of the plan"
        parts += [
            f"- training step of {step['parameters']['total'] / 1e9:.3g} B parameters, "
            f"{step['parameters']['active'] / 1e9:.3g} B active, {step['tokens']} tokens: "
            f"{step['tokens_per_second']:,.0f} tokens/s",
            f"- model FLOPs: {step['flops_per_second'] / 1e12:.3g} TFLOP/s, {share:.0%} of the speed of one large "
            f"bfloat16 product ({step['product_flops_per_second'] / 1e12:.3g} TFLOP/s)",
            f"- memory: {memory}",
        ]
    left_out = {f"{name} ({why})" for case in result["cases"] for name, why in case["left_out"].items()}
    parts += [f"- left out: {one}" for one in sorted(left_out)]
    parts += [f"- not begun for lack of time: {name}" for name in result["not_begun"]]
    return "\n".join(parts)


def main() -> None:
    """Run all parts, print the table and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="JSON file for all numbers and the facts of the machine; by default none")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, also without a GPU, to see that all works")
    parser.add_argument("--minutes", type=float, default=8, help="time in which it ends; default 8")
    options = parser.parse_args()
    options.threads, options.rounds, options.warm_up = None, 9, 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.quick:
        print("There is no GPU here, so nothing was measured.")
        return
    start, limit = time.monotonic(), 60 * options.minutes
    result = new_result("gpu", options, ("torch", "transformers")) | {"device": device, "not_begun": []}
    if device == "cuda":
        result["machine"]["gpu"] = torch.cuda.get_device_name()
    torch.manual_seed(0)

    def begin(name: str, seconds: float, work: Callable[[], Any]) -> Any:
        """Do a part that takes so many seconds at most, where there is as much time left."""
        if time.monotonic() - start + seconds > limit:
            result["not_begun"].append(name)
            return None
        progress(f"[{time.monotonic() - start:4.0f} s] {name}")
        return work()

    layout = Layout(precision="bf16-mixed", micro_batch_size=8, sequence_length=2048, gpu=device == "cuda")
    if options.quick:
        layout = Layout(precision="bf16-mixed", micro_batch_size=2, sequence_length=32)
    sizes, steps = ((QUICK_LAYER,), (QUICK_STEP,)) if options.quick else (LAYERS, STEPS)
    rounds = 2 if options.quick else 9
    result["step"] = begin("training step", 90, lambda: training_step(device, steps, layout, rounds))
    for size in sizes:
        for name in ("switch", "granular"):
            case = begin(f"layer, {name}, {size}", 45, partial(layer_case, device, name, size, rounds))
            result["cases"] += [case] if case else []
    result["tests"] = begin("tests", 180, lambda: gpu_tests(device, 180, options.quick)) or {}
    finish(result, options.output)
    print(table(result))
    if result["tests"].get("failed") or "ended" in result["tests"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
