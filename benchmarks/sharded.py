"""A pretrained mixture of transformers trained whole, divided, and with its experts divided: memory, traffic and speed.

    python benchmarks/sharded.py --output docs/results/sharded.md

Each way trains the same folder on the same sequences, two per optimizer step, with AdamW in float32 on the CPU. A
process measures itself: its anonymous memory, which the kernel cannot drop as it can pages of files, beyond what it
held before the model was built; and the bytes that it must send to others in a step, counted at each collective.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.utils._python_dispatch import TorchDispatchMode

LARGE = {"hidden_size": 512, "moe_intermediate_size": 512, "num_hidden_layers": 20, "num_experts": 16}
QUICK = {"hidden_size": 32, "moe_intermediate_size": 32, "num_hidden_layers": 2, "num_experts": 4}
SHAPE = {"vocab_size": 4096, "intermediate_size": 64, "num_attention_heads": 8, "num_key_value_heads": 4}
SHAPE |= {"num_experts_per_tok": 2, "max_position_embeddings": 512, "initializer_range": 0.05}
LENGTH, SEQUENCES = 128, 2
#: Processes, devices among which the experts are divided, and whether each process builds the whole model first.
WAYS: dict[str, tuple[int, int, bool]] = {
    "one process": (1, 0, True),
    "FSDP2, each process builds the whole model": (2, 1, True),
    "FSDP2": (2, 1, False),
    "FSDP2 + EP": (2, 2, False),
}


class Sent(TorchDispatchMode):
    """Counts the bytes that each collective makes this process send to others."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.total = size, 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name.startswith("c10d::") and self.size > 1:
            self.total += self._bytes(name, args)
        return func(*args, **(kwargs or {}))

    def _bytes(self, name: str, args: Any) -> float:
        others, share = self.size - 1, (self.size - 1) / self.size
        if name == "c10d::_allgather_base_":
            return args[1].nbytes * others
        if name == "c10d::_reduce_scatter_base_":
            return args[1].nbytes * share
        if name == "c10d::allreduce_":
            return sum(tensor.nbytes for tensor in args[0]) * 2 * share
        if name == "c10d::alltoall_base_":
            sent, rank = args[1], torch.distributed.get_rank()
            rows = list(args[4]) or [len(sent) // self.size] * self.size
            return sent.nbytes * (sum(rows) - rows[rank]) / max(1, sum(rows))
        if name in ("c10d::broadcast_", "c10d::barrier", "c10d::allgather_"):
            return 0  # at the start and the end of a run
        raise RuntimeError(f"{name} is a collective that this benchmark cannot count")


class Watch(Callback):
    """Notes what each step logs, its seconds, and the bytes that the second step sends, which is not timed."""

    def __init__(self, memory: Memory, size: int) -> None:
        self.memory, self.sent = memory, Sent(size)
        self.rows: list[dict[str, float]] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Note the memory that building and reading the model took."""
        self.read = self.memory.peak()
        self.begin = time.perf_counter()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin to count in the second step."""
        if trainer.global_step == 1 and self.sent.size > 1:
            self.sent.__enter__()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note what the step logged and took."""
        counted = len(self.rows) == 1 and self.sent.size > 1
        if counted:
            self.sent.__exit__(None, None, None)
        if trainer.global_step > len(self.rows):
            logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
            seconds = math.nan if counted else time.perf_counter() - self.begin
            self.rows.append({**logged, "seconds": seconds})
            self.begin = time.perf_counter()


class Memory:
    """The peak of the process's anonymous memory, looked at every 5 ms, beyond what it is at the start."""

    def __init__(self) -> None:
        self.start = self.most = self._now()
        threading.Thread(target=self._watch, daemon=True).start()

    def peak(self) -> int:
        """Return the peak so far, in bytes."""
        return max(self.most, self._now()) - self.start

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, self._now())
            time.sleep(0.005)

    @staticmethod
    def _now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measure(way: str, folder: str, steps: int) -> dict[str, Any]:
    """Train in this process, as one of those of a way; return what it measured."""
    import transformers.models.qwen3_moe.modeling_qwen3_moe  # noqa: F401  (before the first measurement)

    from lit_core.lightning.later_weights import weights_come_later
    from lit_moe import MoELanguageModel, ShardedStrategy
    from lit_moe.nn import DecoderConfig, HFConfig

    size, experts, whole = WAYS[way]
    rank = int(os.environ.get("LOCAL_RANK", 0))
    ids = torch.randint(0, SHAPE["vocab_size"], (steps * SEQUENCES, 1, LENGTH + 1), generator=_generator())
    batches = [{"input_ids": one[:, :-1], "labels": one[:, 1:]} for one in ids[rank::size]]
    memory = Memory()
    watch = Watch(memory, size)
    with weights_come_later(not whole):
        model = MoELanguageModel(DecoderConfig(SHAPE["vocab_size"]), hugging_face=HFConfig(folder, balance_weight=0.01))
    strategy: Any = ShardedStrategy(expert_parallel=experts) if experts else "auto"
    trainer = Trainer(
        accelerator="cpu",
        devices=size,
        strategy=strategy,
        max_steps=steps,
        accumulate_grad_batches=SEQUENCES // size,
        callbacks=[watch],
        logger=False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(batches, batch_size=None))
    return {"rows": watch.rows, "read": watch.read, "peak": memory.peak(), "sent": watch.sent.total}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def run(way: str, folder: str, steps: int) -> dict[str, Any]:
    """Start the processes of a way; return what they measured, of memory and traffic the most of any."""
    size, _, _ = WAYS[way]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if size > 1:
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "WORLD_SIZE": str(size)}
    command = [sys.executable, __file__, "--way", way, "--folder", folder, "--steps", str(steps)]
    processes = [
        subprocess.Popen(
            command,
            env=environment | ({"LOCAL_RANK": str(rank)} if size > 1 else {}),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    answers = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{way}: a process failed")
    found_all = [json.loads(answer.splitlines()[-1]) for answer in answers]
    return {**found_all[0], **{key: max(one[key] for one in found_all) for key in ("read", "peak", "sent")}}


def save(folder: Path, shape: dict[str, int]) -> int:
    """Save a random model in several files, with a tokenizer; return its bytes."""
    import transformers

    from lit_core.lm.tokenizer import Tokenizer

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("qwen3_moe", **SHAPE, **shape, head_dim=shape["hidden_size"] // 8)
    config.bos_token_id = config.pad_token_id = None
    config.eos_token_id = 256
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder, max_shard_size="100MB")
    Tokenizer.bytes().save(folder)
    return sum(parameter.nbytes for parameter in model.parameters())


def table(results: dict[str, dict[str, Any]], size: int) -> list[str]:
    """Return the rows of the table."""
    lines = [
        "| way | loss, last step | gradient norm | tokens/s | memory to read | peak memory | sent per step |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, result in results.items():
        last = result["rows"][-1]
        seconds = [row["seconds"] for row in result["rows"][2:]]  # after the first, and the one that is counted
        speed = SEQUENCES * LENGTH / (sum(seconds) / len(seconds))
        parts = [f"{result[key] / 2**20:,.0f} MiB ({result[key] / size:.2f}×)" for key in ("read", "peak")]
        lines.append(
            f"| {way} | {last['train/loss']:.7f} | {last['train/gradient_norm']:.6f} | {speed:.0f} | {parts[0]} | "
            f"{parts[1]} | {result['sent'] / 2**20:,.0f} MiB |"
        )
    return lines


def page(results: dict[str, dict[str, Any]], size: int, shape: dict[str, int], steps: int) -> str:
    """Return the page."""
    import transformers

    return "\n".join(
        [
            "# Pretrained weights in parts",
            "",
            "`python benchmarks/sharded.py --output docs/results/sharded.md`",
            "",
            f"A Qwen3-MoE of transformers of {size / 2**20:,.0f} MiB in float32 ({shape['num_hidden_layers']} layers "
            f"of {shape['num_experts']} experts, width {shape['hidden_size']}), read from its safetensors and trained "
            f"for {steps} steps of {SEQUENCES} × {LENGTH} tokens with AdamW in float32. CPU, torch "
            f"{torch.__version__}, transformers {transformers.__version__}.",
            "",
            "Memory is the anonymous memory of a process, of several the most of any, beyond what it held before the "
            "model was built; in parentheses, its multiple of the model's size. To read is the most until the weights "
            "are there, the peak the most until the last step, with gradients, moments and activations. Sent are the "
            "bytes that the collectives of a step ask of a process. All processes share two cores, so tokens/s tells "
            "only what each way costs in all; it varies with what else the machine does.",
            "",
            *table(results, size),
            "",
        ]
    )


def main() -> None:
    """Run the benchmark, or one process of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see that all runs")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--folder")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.folder, options.steps)))
        return
    shape = QUICK if options.quick else LARGE
    with tempfile.TemporaryDirectory() as work:
        size = save(Path(work), shape)
        results = {way: run(way, work, options.steps) for way in WAYS}
    text = page(results, size, shape, options.steps)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
