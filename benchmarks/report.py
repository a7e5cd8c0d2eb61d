"""Write docs/results/speed.md from the numbers that the benchmarks left beside it.

``python benchmarks/report.py docs/results``
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data_stream
import hf_decoder
import loop_overhead
import moe_ffn
import step_profile
import train_step
from side_by_side import ratios

from lit_core.files.paths import atomic_write

LAYER_AIMS = {"fp32": 1.2, "bf16": 1.3}
STEP_AIM = 1.3
STREAM_AIM = 0.8
LOOP_AIM = 1.05
BUSY = 0.2  # cores of two that other work may take before the page says so
DEFAULT = moe_ffn.OURS[0]  # what backend: auto chooses on a CPU


def conditions(result: dict[str, Any]) -> str:
    """Return where and when a result was measured, in a paragraph."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    tunables = f"GLIBC_TUNABLES={machine['GLIBC_TUNABLES']}" if machine["GLIBC_TUNABLES"] else "default allocator"
    text = (
        f"`{result['command']}`, {machine['date']}, {result['minutes']} minutes: {result['rounds']} rounds after "
        f"{result['warm_up']} of warm-up, {machine['threads']} threads on {machine['cores']} cores of "
        f"{machine['processor']} ({machine['instructions']}), {tunables}, Python {machine['python']}, {versions}, "
        f"commit {machine['commit']}. Load average {machine['load_average_before']} before and "
        f"{machine['load_average_after']} after."
    )
    others = [case["cores_busy_with_others"] for case in result["cases"] if case["cores_busy_with_others"] is not None]
    if others:
        text += f" Other processes kept {_range(others)} cores busy during a row."
    if others and max(others) > BUSY:
        text += (
            " **That is too much for conclusions: it slows contenders with many small products more than the others, "
            "so ratios are off as well as times.**"
        )
    return text


def layer_findings(result: dict[str, Any]) -> str:
    """Return how near the aims and the limit our default backend is, in sentences."""
    lines = []
    for dtype, aim in LAYER_AIMS.items():
        cases = [case for case in result["cases"] if case["dtype"] == dtype]
        mine = [case["ratios"][DEFAULT]["ratio"] for case in cases]
        over = [ratios(case["seconds"], moe_ffn.PRODUCTS)[DEFAULT]["ratio"] for case in cases]
        floor = [case["ratios"][moe_ffn.PRODUCTS]["ratio"] for case in cases]
        lines.append(
            f"- {dtype}: {_range(mine)} of the dense layer's time; the aim of at most {aim} is met in "
            f"{sum(ratio <= aim for ratio in mine)} of {len(mine)} rows. {_ahead(cases)} The limit: the products alone "
            f"take {_range(floor)} of the dense layer's whole time; our layer takes {_range(over)} times the products."
        )
    return "\n".join(lines)


def step_findings(result: dict[str, Any]) -> str:
    """Return how many training steps are within the aim, in a sentence."""
    found = [v["ratio"] for case in result["cases"] for name, v in case["ratios"].items() if name != "dense"]
    return (
        f"A step with mixtures takes {_range(found)} of the dense one's time; the aim of at most {STEP_AIM} is met in "
        f"{sum(ratio <= STEP_AIM for ratio in found)} of {len(found)} cells. What mixtures share with the dense "
        "decoder (attention, norms, vocabulary) draws the ratio towards 1; what only they have (routing, and clipping "
        "and optimizer over several times as many weights) draws it away."
    )


def decoder_findings(result: dict[str, Any]) -> str:
    """Return how our decoder compares with transformers' faster implementation, in a sentence for each dtype."""
    lines = []
    for dtype in dict.fromkeys(case["dtype"] for case in result["cases"]):
        cases = [case for case in result["cases"] if case["dtype"] == dtype]
        found = []
        for case in cases:
            theirs = min(v["ratio"] for name, v in case["ratios"].items() if name in hf_decoder.PEERS)
            found.append(case["ratios"][hf_decoder.OURS]["ratio"] / theirs)
        lines.append(
            f"- {dtype}: our decoder takes {_range(found)} of the time of transformers' faster implementation, and is "
            f"ahead of it in {sum(ratio < 1 for ratio in found)} of {len(found)} rows."
        )
    return "\n".join(lines)


def decoder_section(result: dict[str, Any]) -> str:
    """Return the section on our decoder beside transformers'.

    Args:
        result: Result of hf_decoder.py.
    """
    return f"""
## Decoder beside transformers'

{hf_decoder.table(result)}

The same random weights on both sides: Llama's where dense, else OLMoE's, whose experts are all routed, so `granular` is
32 experts of d_ff / 4, 4 per token. A step is forward, loss and backward, without an optimizer. *Hugging Face* is
transformers' model with its grouped matrix product and its own loss; *eager* loops over the experts. *In HFDecoder* is
the same model as `lit-moe` trains it: the loss in chunks, and the gates read by hooks. Losses and gradient norms are
compared in fp32 before the timing. In bf16, weights are bfloat16.

{decoder_findings(result)}

{conditions(result)}
"""


def stream_findings(result: dict[str, Any]) -> str:
    """Return how fast our stream is beside the others', in sentences."""
    cases = result["cases"]
    speeds = [1 / case["ratios"][data_stream.OURS]["ratio"] for case in cases]
    lines = [
        f"Our stream reads at {_range(speeds)} of the memory map's speed; the aim of at least {STREAM_AIM} is met in "
        f"{sum(speed >= STREAM_AIM for speed in speeds)} of {len(speeds)} rows."
    ]
    for peer in data_stream.PEERS:
        measured = [ratios(case["seconds"], data_stream.OURS) for case in cases]
        leads = [found[peer]["ratio"] for found in measured if peer in found]
        if leads:
            ahead = sum(lead > 1 for lead in leads)
            lines.append(
                f"It is ahead of {peer} in {ahead} of {len(leads)}: that one takes {_range(leads)} times our time."
            )
    return " ".join(lines)


def stream_section(result: dict[str, Any]) -> str:
    """Return the section on the data stream.

    Args:
        result: Result of data_stream.py.
    """
    most = max(len(case["sources"]) for case in result["cases"])
    return f"""
## Data stream

{data_stream.table(result)}

Byte tokens of the Python standard library and, where there are {most} sources, Austen, read by one data-loading process
with the default prefetch; nothing else is done with a batch. Cells are ratios of time to the *memory map*, which takes
windows at random places of plain uint16 files, as short training scripts do; lower is better. *Ours* reads the shards
that `prepare` writes, in an order that a resumed run goes on with exactly. *litdata* reads chunks with TokensLoader,
shuffled; *webdataset* a tar member per sequence through a shuffle of {data_stream.SHARD:,}. Sources are mixed by their
sizes. A round begins with a new loader and is timed from its first batch on; the last columns say how long that one
took, with the start of the process. Rows of all contenders are looked up in the text before the
timing. Part of the difference is transport: ours hands a small batch over through a pipe, the others through torch's
shared memory, which takes longer at this size. All single times are in [data_stream.json](data_stream.json).

{stream_findings(result)}

{conditions(result)}
"""


def loop_findings(result: dict[str, Any]) -> str:
    """Return what a trainer and our callbacks cost, in sentences."""
    lines = []
    for way, named in ((loop_overhead.TRAINER, "Lightning's trainer"), (loop_overhead.RUN, "A whole run")):
        found = [case["ratios"][way]["ratio"] for case in result["cases"]]
        added = [loop_overhead.overhead(case, way) for case in result["cases"]]
        lines.append(
            f"- {named} takes {_range(found)} of the bare loop's time and adds {_range(added)} ms to a step; at most "
            f"{LOOP_AIM} is met in {sum(ratio <= LOOP_AIM for ratio in found)} of {len(found)} rows."
        )
    return "\n".join(lines)


def loop_section(result: dict[str, Any]) -> str:
    """Return the section on the cost of the trainer.

    Args:
        result: Result of loop_overhead.py.
    """
    return f"""
## Trainer beside a bare loop

{loop_overhead.table(result)}

Granular mixtures with the penalty router in fp32; {loop_overhead.REPLAY:.0%} of each batch is replayed. The *bare loop*
is forward, loss, backward, clipping, fused AdamW and schedule. *Trainer* is `Trainer.fit` with the same model as a
LightningModule, without loggers and callbacks. *Whole run* adds what `lit-moe fit` and the quickstart's configs do:
TensorBoard and CSV file at each {loop_overhead.LOG_EVERY}th step, progress bar, ResumeStream, FiniteLoss, GracefulStop,
RunRecord, RouterBalance and ReplayMixing; Forgetting and SampleText act in validation and at the ends only, which are
left out, as are checkpoints. All read the same batches in the same process and start from the same weights in each
round; losses are compared over all steps before the timing. Cells are ratios of the time per step to the bare loop's;
*added* is the median of the rounds' differences. The aim of at most {LOOP_AIM} is the trainer's. All single times are
in [loop_overhead.json](loop_overhead.json).

{loop_findings(result)}

{conditions(result)}
"""


def profile_section(result: dict[str, Any]) -> str:
    """Return the section on where a step's time goes.

    Args:
        result: Result of step_profile.py.
    """
    return f"""
## Where the time of a step goes

{step_profile.table(result)}

Steps as in the table above, in fp32, in one process with products of two {step_profile.SIZE} × {step_profile.SIZE}
matrices; the first two rows have the quickstart's shape. GFLOP/s are of model FLOPs, backward = 2 × forward. Shares are
of the operations' own time by torch's profiler, over {step_profile.PROFILED} steps. The products of a step are slower
than the large one, since they are small. The rest is what memory gives, fresh pages for large tensors among it: see the
allocator in [moe.md](../moe.md).

{conditions(result)}
"""


SECTIONS = {
    "step_profile": profile_section,
    "hf_decoder": decoder_section,
    "data_stream": stream_section,
    "loop_overhead": loop_section,
}


def page(layers: dict[str, Any], steps: dict[str, Any], sections: Sequence[str] = ()) -> str:
    """Return the whole page.

    Args:
        layers: Result of moe_ffn.py.
        steps: Result of train_step.py.
        sections: What follows on other benchmarks, as far as they were run.
    """
    return f"""# Speed

Made by `make bench`, which runs the benchmarks in an environment of their own and writes this page. All single times
are in [moe_ffn.json](moe_ffn.json) and [train_step.json](train_step.json). The contenders of a row run in one process,
one step each per round, in an order drawn anew for each round, on a new random input in each step. A cell is the median
of the rounds' ratios to the dense contender, ± half their interquartile range; lower is better.

## Feed-forward layer, forward and backward

{moe_ffn.table(layers)}

The best of ours and the peers is bold. `switch` is 8 experts of d_ff, 1 per token; `granular` is 31 routed and 1 shared
expert of d_ff / 4, 3 per token: both have the FLOPs of the dense layer, three linear layers of width d_ff. litgpt runs
the same shapes. Hugging Face's Mixtral block has no shared experts and runs the nearest shape of equal FLOPs, 32 of
d_ff / 4, 4 per token. Where a token has several experts, all divide their weights by the sum; where it has one, the
peers' weight is always 1, ours the router's probability. Before the timing, output and gradients of each layer are
compared with a plain formula that goes token by token. A step is forward, backward with the gradients of input and
weights, and their release. In bf16, weights and input are bfloat16. Routers are random, so experts are unevenly filled.

*Products alone* are the matrix products of a loop over experts for as uneven row counts, into buffers that are used
again: no routing, gathering, activation or fresh memory. They are the limit of such a loop; they cost more than the
dense layer's because each expert's weights are read, and their gradients written, for fewer rows. In bf16 torch's CPU
library also builds a kernel for each row count it has not met in the process; that is in this column as well.

{layer_findings(layers)}

{conditions(layers)}

## Training step

{train_step.table(steps)}

A step is forward, loss, backward, clipping, fused AdamW and the release of the gradients, without a trainer. FLOPs per
token are equal but for the routers, which is checked. Tokens are random.

{step_findings(steps)}

{conditions(steps)}
{"".join(sections)}"""


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f} (median {statistics.median(values):.2f})"


def _ahead(cases: list[dict[str, Any]]) -> str:
    leads = []
    for case in cases:
        peers = [case["ratios"][name]["ratio"] for name in moe_ffn.PEERS if name in case["ratios"]]
        if peers:
            leads.append(min(peers) / case["ratios"][DEFAULT]["ratio"])
    if not leads:
        return "No peer was installed."
    ahead = sum(lead > 1 for lead in leads)
    return f"It is ahead of the best peer in {ahead} of {len(leads)}: that one takes {_range(leads)} times our time."


def main() -> None:
    """Read the results and write the page; all but the first two may be missing."""
    parser = argparse.ArgumentParser(description="Write speed.md from the numbers beside it.")
    parser.add_argument(
        "folder", type=Path, help="folder with moe_ffn.json and train_step.json; speed.md is written there"
    )
    folder: Path = parser.parse_args().folder
    layers, steps = (json.loads((folder / f"{name}.json").read_text()) for name in ("moe_ffn", "train_step"))
    paths = {name: folder / f"{name}.json" for name in SECTIONS}
    sections = [SECTIONS[name](json.loads(path.read_text())) for name, path in paths.items() if path.exists()]
    atomic_write(folder / "speed.md", page(layers, steps, sections))


if __name__ == "__main__":
    main()
