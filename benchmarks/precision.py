"""What each precision learns at the low rates at which a training ends, on a small mixture and English prose.

    python benchmarks/precision.py --output docs/results/precision.md

For each seed a mixture is trained in float32 and then goes on at a low constant rate, in each precision from the same
weights and on the same tokens, with new moments. One thread per process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

WAYS: dict[str, dict[str, Any]] = {
    "`32-true`": {"precision": "32-true"},
    "`bf16-true`, steps rounded to bfloat16": {"precision": "bf16-true", "rounded": True},
    "`bf16-true`": {"precision": "bf16-true"},
    "`bf16-mixed`": {"precision": "bf16-mixed"},
    "`bf16-mixed`, FSDP2 on two processes": {"precision": "bf16-mixed", "devices": 2},
}
BEFORE = "before"
#: Learning rate and steps of the training in float32, and of what follows.
FIRST, SECOND = (4e-3, 300), (1e-5, 60)


def data_module(root: Path, seed: int, devices: int) -> Any:
    """Return the prepared prose in sequences of 128 tokens, 8 of them per step."""
    from lit_moe import TokenDataModule

    return TokenDataModule(
        str(root),
        {"austen": 1.0},
        sequence_length=128,
        global_batch_size=8,
        micro_batch_size=8 // devices,
        validation_samples=64,
        seed=seed,
    )


def language_model(seed: int, rate: float) -> Any:
    """Return a mixture of 8 experts, of which 2 see a token, trained by AdamW at a rate."""
    import torch

    from lit_moe import MoELanguageModel
    from lit_moe.nn import DecoderConfig, MoEConfig, PenaltyRouter

    mixture = MoEConfig(n_experts=8, top_k=2, expert_width=64)
    config = DecoderConfig(512, n_layers=2, d_model=64, n_heads=4, d_ff=128, feed_forward=mixture, max_seq_len=128)
    adamw = lambda groups: torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), weight_decay=0.1)  # noqa: E731
    return MoELanguageModel(config, PenaltyRouter, adamw, seed=seed)


def train(root: Path, start: Path | None, seed: int, path: Path, precision: str, rounded: bool, devices: int) -> None:
    """Train and write what is measured to a JSON file; without a start, write the weights too."""
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.loggers import CSVLogger

    from lit_core.callbacks import UnmovedWeights
    from lit_core.data import ResumeStream
    from lit_core.lightning.float32_steps import stored_bits
    from lit_moe import ShardedStrategy

    torch.set_num_threads(1)
    rate, steps = FIRST if start is None else SECOND
    module = language_model(seed, rate)
    if start is not None:
        module.load_state_dict(torch.load(start, weights_only=True))
    logger = CSVLogger(path.with_suffix(""), name="", version="")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=ShardedStrategy() if devices > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
        max_steps=steps,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        log_every_n_steps=5,
        callbacks=[ResumeStream(), UnmovedWeights()],
        logger=logger,
        **quiet,  # type: ignore[arg-type]
    )
    data = data_module(root, seed, devices)
    shares: list[float] = []
    with mock.patch.object(
        logger, "log_metrics", lambda metrics, step: shares.append(metrics["train/unmoved_weights"])
    ):
        if rounded:  # as torch's AdamW does it by itself
            with mock.patch("lit_core.lightning.optimizers.step_in_float32", lambda optimizer: None):
                trainer.fit(module, datamodule=data)
        else:
            trainer.fit(module, datamodule=data)
    if start is None:
        torch.save(module.state_dict(), path.with_suffix(".pt"))
    optimizer = trainer.optimizers[0]
    weights = [
        stored_bits(optimizer, weight)[0].nbytes for group in optimizer.param_groups for weight in group["params"]
    ]
    states = [_bytes(value) for state in optimizer.state.values() for value in state.values()]
    trainer.limit_val_batches = 1.0
    loss = trainer.validate(module, datamodule=data, verbose=False)[0]["val/austen/loss"]
    measured = {"loss": loss, "unmoved": statistics.mean(shares), "weights": sum(weights), "states": sum(states)}
    if trainer.is_global_zero:
        path.write_text(json.dumps(measured))


def _bytes(value: Any) -> int:
    return int(value.to_local().nbytes if hasattr(value, "to_local") else value.nbytes)


def on_processes(count: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run a function in new processes, in each of which a Trainer with as many devices finds the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [
        {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
        | {"NODE_RANK": "0", "LOCAL_RANK": str(rank)}
        for rank in range(count)
    ]
    context = multiprocessing.get_context("fork")  # which imports nothing again
    processes = [context.Process(target=_placed, args=(place, function, arguments)) for place in places]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("A process of the training failed.")


def report(seeds: list[dict[str, dict[str, float]]]) -> str:
    """Put the rows of all seeds into Markdown."""
    import lightning
    import torch

    lines = [
        "# Precision at the end of a training",
        "",
        f"`python benchmarks/precision.py --seeds {len(seeds)} --output docs/results/precision.md`; torch "
        f"{torch.__version__}, lightning {lightning.__version__}.",
        "",
        f"A mixture of 2 layers, 64 wide, with 8 experts, learns Austen's novels for {FIRST[1]} steps of 8 × 128 "
        f"tokens at {FIRST[0]:g} in float32. From these weights it goes on for {SECOND[1]} steps at {SECOND[0]:g} in "
        "each precision, with new moments, on the same tokens. Validation loss in nats per token over 64 sequences, "
        f"mean over {len(seeds)} seeds; *learned* is what these steps lower it by, with the least and most of a seed; "
        "*unmoved* is the mean of `train/unmoved_weights`; bytes are those of one process per weight of the model.",
        "",
        "| precision | loss | learned | of what float32 learns | unmoved | bytes of weights and states per weight |",
        "|---|---|---|---|---|---|",
    ]
    learned = {name: [rows[BEFORE]["loss"] - rows[name]["loss"] for rows in seeds] for name in WAYS}
    exact = statistics.mean(learned[next(iter(WAYS))])
    total = seeds[0][next(iter(WAYS))]["weights"] / 4
    for name, gains in learned.items():
        loss, unmoved = (statistics.mean(rows[name][key] for rows in seeds) for key in ("loss", "unmoved"))
        mean = statistics.mean(gains)
        weights, states = (seeds[0][name][key] / total for key in ("weights", "states"))
        lines.append(
            f"| {name} | {loss:.4f} | {mean:.4f} ({min(gains):.4f} to {max(gains):.4f}) | {mean / exact:.0%} | "
            f"{unmoved:.1%} | {weights:.1f} + {states:.1f} |"
        )
    lines += [
        "",
        "Steps rounded to bfloat16 are what AdamW does by itself. Under `bf16-true` no step is lost, but the network "
        "computes with weights and gradients that are rounded to bfloat16.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all seeds and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="Number of seeds.")
    parser.add_argument("--output", type=Path, default=None, help="Markdown file; none prints the page.")
    options = parser.parse_args()
    import lit_moe  # noqa: F401  (once for all processes)

    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "data"
        config = ["--config", "configs/moe/prepare/austen.yaml", "--root", str(root), "--vocab_size", "512"]
        subprocess.run([sys.executable, "-m", "lit_moe", "prepare", *config], check=True)
        seeds = [measure(root, Path(name), seed) for seed in range(options.seeds)]
    page = report(seeds)
    if options.output is None:
        print(page)
    else:
        options.output.write_text(page)


def _placed(place: dict[str, str], function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    if place["WORLD_SIZE"] != "1":
        os.environ.update(place)
    function(*arguments)


def measure(root: Path, folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Return what each precision reaches with one seed."""
    start = folder / f"{seed}.json"
    on_processes(1, train, root, None, seed, start, "32-true", False, 1)
    rows = {BEFORE: json.loads(start.read_text())}
    print(seed, rows, flush=True)
    for index, (name, way) in enumerate(WAYS.items()):
        path, devices = folder / f"{seed}-{index}.json", way.get("devices", 1)
        on_processes(
            devices,
            train,
            root,
            start.with_suffix(".pt"),
            seed,
            path,
            way["precision"],
            way.get("rounded", False),
            devices,
        )
        rows[name] = json.loads(path.read_text())
        print(seed, name, rows[name], flush=True)
    return rows


if __name__ == "__main__":
    main()
