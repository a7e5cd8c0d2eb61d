"""A small language model on real text, trained from shards: a module for the tests and a script for their processes."""

import argparse
import functools
import json
import os
import string
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_core.data import (
    EvalStream,
    MixtureStream,
    ResumeStream,
    StreamLoader,
    TokenWindows,
    write_index,
    write_shard,
)
from lit_core.lightning.checkpoint import AtomicCheckpointIO

LENGTH, END = 16, 256


def real_documents():
    return [Path(module.__file__).read_text() for module in (textwrap, string, functools)]


def byte_tokens(documents):
    return np.concatenate([[END], *[[*text.encode(), END] for text in documents]]).astype(np.uint16)


def write_tokens(folder, tokens, *, shards=2, chunk=1000, text_bytes=0, source=None, vocab_size=257):
    entries = []
    for number, part in enumerate(np.array_split(tokens, shards)):
        chunks = [part[start : start + chunk] for start in range(0, len(part), chunk)]
        samples = [{"__key__": f"{number:06d}-{place:06d}", "npy": piece} for place, piece in enumerate(chunks)]
        if number == 0:
            samples[0]["__text_bytes__"] = text_bytes
        entries.append(write_shard(Path(folder) / f"{number:06d}.tar", samples))
    write_index(
        folder,
        entries,
        kind="tokens",
        source=source or Path(folder).name,
        split="train",
        dtype=str(tokens.dtype),
        tokenizer={"sha256": "bytes", "vocab_size": vocab_size, "end_of_text": END},
    )
    return Path(folder)


def prepare(folder, samples=40):
    """Write two sources, the first with that many windows and the second with half as many."""
    for name, text in zip(("new", "old"), real_documents()[:2], strict=True):
        count = samples if name == "new" else samples // 2
        write_tokens(Path(folder) / name, byte_tokens([text])[: count * LENGTH + 1])
    return Path(folder)


class TinyLM(LightningModule):
    def __init__(self, dropout=0.2):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Embedding(257, 16), torch.nn.Dropout(dropout), torch.nn.Linear(16, 32), torch.nn.GELU(),
            torch.nn.Dropout(dropout), torch.nn.Linear(32, 257),
        )  # fmt: skip
        for parameter in self.net.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.net(batch["input_ids"]).flatten(0, 1), batch["labels"].flatten())

    def validation_step(self, batch, batch_idx):
        torch.rand(3)  # validation that draws at random must not change the training
        self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + 0.1 * step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Record(Callback):
    """Keeps what each micro-batch was trained on, and where Lightning thought it was."""

    def __init__(self, path=None):
        self.rows = []
        self.path = path

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.row = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "batch_idx": batch_idx,
            "logged_at": trainer.fit_loop.epoch_loop._batches_that_stepped,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "ids": list(zip(batch["source"].tolist(), batch["index"].tolist(), strict=True)),
            "text": batch["input_ids"].sum(1).tolist(),
        }

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rows.append(self.row | {"loss": outputs["loss"].item()})
        if self.path:
            with open(f"{self.path}.{trainer.global_rank}", "a") as file:
                file.write(json.dumps(self.rows[-1]) + "\n")


def make_stream(data, *, batch=6, micro=2, fraction=0.25, rank=0, world=1, seed=0):
    new, old = (TokenWindows(Path(data) / name, LENGTH) for name in ("new", "old"))
    stream = MixtureStream(
        {"new": new}, None, {"old": old}, global_batch_size=batch, micro_batch_size=micro, rank=rank, world_size=world,
        seed=seed,
    )  # fmt: skip
    stream.set_replay(fraction)
    return stream


def train(
    data, out, *, workers=0, batch=6, micro=2, fraction=0.25, rank=0, world=1, seed=0, context=None, ckpt_path=None,
    callbacks=(), record=None, resume=None, dropout=0.2, **trainer_args,
):  # fmt: skip
    """Train, and return the record, the final weights and optimizer state."""
    stream = make_stream(data, batch=batch, micro=micro, fraction=fraction, rank=rank, world=world, seed=seed)
    record, module = record or Record(), TinyLM(dropout)
    trainer = Trainer(
        default_root_dir=out,
        accelerator="cpu",
        **{"devices": 1, "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
           "accumulate_grad_batches": stream.accumulation, "num_sanity_val_steps": 1, "max_epochs": -1,
           "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks)}
        | trainer_args,
        callbacks=[resume or ResumeStream(), record, *callbacks],
        plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    evaluation = EvalStream(stream.sources["old"], 4, rank, world)
    trainer.fit(
        module,
        StreamLoader(stream, workers, multiprocessing_context=context),
        {"old": StreamLoader(evaluation)},
        ckpt_path=ckpt_path,
        weights_only=True,
    )
    return record.rows, module.state_dict(), trainer.optimizers[0].state_dict()["state"]


def command(data, out, **options):
    """Return the arguments for a process that runs this file."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    path = str(Path(__file__).parents[3])
    return {
        "args": [sys.executable, __file__, "--data", str(data), "--out", str(out), *words],
        "env": os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--out")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--micro", type=int, default=2)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--ckpt_path")
    args = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(args.out)
    out.mkdir(exist_ok=True)
    saver = ModelCheckpoint(
        out, filename="{step}", every_n_train_steps=args.every, save_last=True, enable_version_counter=False
    )
    _, weights, moments = train(
        args.data, out, workers=args.workers, batch=args.batch, micro=args.micro, devices=args.devices,
        rank=int(os.environ.get("LOCAL_RANK", 0)), world=args.devices, ckpt_path=args.ckpt_path, max_steps=args.steps,
        strategy="ddp" if args.devices > 1 else "auto", val_check_interval=7, limit_val_batches=1,
        dropout=args.dropout, callbacks=[saver], record=Record(out / "rows"),
    )  # fmt: skip
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        torch.save({"weights": weights, "moments": moments}, out / "final.pt")


if __name__ == "__main__":
    sys.exit(main())
