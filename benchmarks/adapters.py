"""What adapters save of the memory of a training step, on a mixture of transformers.

    python benchmarks/adapters.py --output docs/results/adapters.md

Each way of training is a process of its own that takes two steps of AdamW in float32 on the CPU. Weights, gradients and
moments are counted; the peak is what the process holds resident beyond what it held before the network was built.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8}
SHAPE |= {"num_key_value_heads": 4, "num_local_experts": 16, "num_experts_per_tok": 2, "vocab_size": 4096}
BATCH, LENGTH, RANK = 4, 256, 8
WAYS = {
    "all weights": None,
    "adapters on attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "adapters on attention and routers": ["q_proj", "k_proj", "v_proj", "o_proj", "mlp.gate"],
    "adapters on attention, routers and experts": ["q_proj", "k_proj", "v_proj", "o_proj", "mlp.gate", "experts"],
}


def measure(way: str) -> dict[str, float]:
    """Return the trained parameters and the MiB of the parts of a training's memory."""
    import torch

    from lit_moe.module import MoELanguageModel
    from lit_moe.nn import AdapterConfig, DecoderConfig, HFConfig

    targets = WAYS[way]
    import transformers.models.mixtral.modeling_mixtral  # noqa: F401  (before the first measurement)

    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    module = MoELanguageModel(
        DecoderConfig(SHAPE["vocab_size"]),
        hugging_face=HFConfig(config={"model_type": "mixtral", **SHAPE}),
        adapter=None if targets is None else AdapterConfig(targets, rank=RANK),
        seed=0,
    )
    parameters = list(module.parameters())
    optimizer = module.configure_optimizers()
    torch.manual_seed(0)
    for _ in range(2):
        ids = torch.randint(0, SHAPE["vocab_size"], (BATCH, LENGTH))
        logits = module(ids[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        gradients = sum(p.grad.nbytes for p in parameters if p.grad is not None)
        optimizer.step()
        optimizer.zero_grad()
    moments = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    parts = {"weights": sum(p.nbytes for p in parameters), "gradients": gradients, "moments": moments, "peak": peak}
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return {"trained": trained, **{part: size / 2**20 for part, size in parts.items()}}


def page(rows: dict[str, dict[str, float]]) -> str:
    """Return the page."""
    import peft
    import torch
    import transformers

    lines = [
        "# What adapters save",
        "",
        "`python benchmarks/adapters.py --output docs/results/adapters.md`",
        "",
        f"A Mixtral of transformers with {SHAPE['num_hidden_layers']} layers of {SHAPE['num_local_experts']} experts, "
        f"width {SHAPE['hidden_size']}, float32, {BATCH} × {LENGTH} tokens, AdamW, adapters of rank {RANK}, "
        f"CPU, torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}. All in "
        "MiB. The peak is what the process holds resident, beyond what it held before the network was built, so it "
        "includes activations.",
        "",
        "| trained | parameters | weights | gradients | moments | peak |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for way, row in rows.items():
        sizes = " | ".join(f"{row[part]:,.1f}" for part in ("weights", "gradients", "moments", "peak"))
        lines.append(f"| {way} | {row['trained']:,.0f} | {sizes} |")
    lines += [
        "",
        "Adapters on stacked experts save gradients and moments. But peft adds their products to the weights in each",
        "forward pass and keeps the sums for the backward pass, so the peak is higher by about their size.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure each way in a process of its own, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", help="The page to write; without it, it is printed.")
    parser.add_argument("--way", choices=WAYS, help="Measure this way only, and print its numbers as JSON.")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way)))
        return
    rows = {}
    for way in WAYS:
        done = subprocess.run([sys.executable, __file__, "--way", way], capture_output=True, text=True, check=True)
        rows[way] = json.loads(done.stdout.splitlines()[-1])
    if options.output:
        Path(options.output).write_text(page(rows), encoding="utf-8")
    else:
        print(page(rows))


if __name__ == "__main__":
    main()
