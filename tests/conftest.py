"""What several test files need: real text, tiny models, small prepared data."""

import inspect
import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import textwrap
from itertools import islice
from unittest import mock

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F

from lit_core.corpora import Austen, PythonStdlib
from lit_core.data import EvalStream, MixtureStream, ResumeStream, StreamLoader, write_index, write_shard
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.nn import MoEConfig, MoEFeedForward, PenaltyRouter, auxiliary_losses

torch.set_num_threads(1)
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def own_environment():
    """Lightning leaves LOCAL_RANK and MASTER_PORT behind, of which the commands that later tests start would die."""
    with mock.patch.dict(os.environ):
        yield


class ByteWindows:
    """Windows over the bytes of a text, as a source of samples."""

    def __init__(self, text, length=16, limit=None):
        self.rows = torch.tensor(list(text.encode()))
        self.length = length
        self.size = min((len(self.rows) - 1) // length, limit or len(self.rows))

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        row = self.rows[index * self.length : (index + 1) * self.length + 1]
        return {"input_ids": row[:-1], "labels": row[1:]}


class ByteData(pl.LightningDataModule):
    """Somebody else's DataModule: two modules of the standard library as a mixture of bytes."""

    def __init__(self, global_batch_size=8, micro_batch_size=2, replay=True, length=16):
        super().__init__()
        self.global_batch_size, self.micro_batch_size, self.replay = global_batch_size, micro_batch_size, replay
        self.length = length

    def sources(self, limit):
        texts = {"new": inspect.getsource(argparse), "old": inspect.getsource(textwrap)}
        return {name: ByteWindows(text, self.length, limit) for name, text in texts.items()}

    def setup(self, stage):
        sources = self.sources(None)
        replay = {"old": sources["old"]} if self.replay else None
        self.stream = MixtureStream(
            {"new": sources["new"]},
            None,
            replay,
            None,
            global_batch_size=self.global_batch_size,
            micro_batch_size=self.micro_batch_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        self.trainer.accumulate_grad_batches = self.stream.accumulation

    def train_dataloader(self):
        return StreamLoader(self.stream)

    def val_dataloader(self):
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return {
            name: StreamLoader(EvalStream(source, 4, rank, world_size)) for name, source in self.sources(30).items()
        }

    test_dataloader = val_dataloader


class ByteModel(pl.LightningModule):
    """Somebody else's LightningModule that happens to hold two of our layers."""

    def __init__(self, router=PenaltyRouter, n_experts=4, top_k=2):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(256, 16)
        shape = MoEConfig(n_experts=n_experts, top_k=top_k, expert_width=8, backend="loop")
        self.blocks = nn.ModuleList(MoEFeedForward(16, shape, router) for _ in range(2))
        self.head = nn.Linear(16, 256)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def run(self, block, x, mask):
        return block(x, mask)

    def nll(self, batch):
        x, mask = self.embed(batch["input_ids"]), batch["labels"] != -100
        for block in self.blocks:
            x = x + self.run(block, x, mask)
        return F.cross_entropy(self.head(x).transpose(1, 2), batch["labels"], reduction="none"), mask

    def training_step(self, batch, batch_idx):
        nll, _ = self.nll(batch)
        return nll.mean() + auxiliary_losses(self)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        nll, mask = self.nll(batch)
        name = list(self.trainer.val_dataloaders)[dataloader_idx]
        size = int(mask.sum())
        loss = nll.sum() / max(1, size)
        self.log(f"val/{name}/loss", loss, add_dataloader_idx=False, batch_size=max(1, size), sync_dist=True)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.nll(batch)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


@pytest.fixture(scope="session")
def token_texts():
    """The documents behind each split of `token_root`, by source and split: English prose and Python code."""
    texts = {}
    for name, corpus in (("austen", Austen()), ("stdlib", PythonStdlib())):
        documents = [document.text for document in islice(corpus.documents(), 8)]
        texts[name] = {
            "train": [text[:12_000] for text in documents[:4]],
            "val": [text[:3_000] for text in documents[4:6]],
            "test": [text[:3_000] for text in documents[6:8]],
        }
    return texts


@pytest.fixture(scope="session")
def token_root(tmp_path_factory, token_texts):
    """A root of two small sources with one tokenizer."""
    training = [text for splits in token_texts.values() for text in splits["train"]]
    return write_token_root(tmp_path_factory.mktemp("tokens"), token_texts, Tokenizer.train_bpe(training, 384))


@pytest.fixture(scope="session")
def byte_root(tmp_path_factory, token_texts):
    """The same texts with another tokenizer."""
    return write_token_root(tmp_path_factory.mktemp("bytes"), token_texts, Tokenizer.bytes())


def write_token_root(root, texts, tokenizer):
    tokenizer.save(root / "tokenizer.json")
    for name, splits in texts.items():
        for split, documents in splits.items():
            folder = root / name / split
            rows = [[tokenizer.end_of_text] if number == 0 else [] for number in range(len(documents))]
            samples = [
                {
                    "__key__": f"{number:06d}",
                    "npy": np.array([*row, *tokenizer.encode(text), tokenizer.end_of_text], dtype=np.uint16),
                    "__text_bytes__": len(text.encode()),
                }
                for number, (row, text) in enumerate(zip(rows, documents, strict=True))
            ]
            folder.mkdir(parents=True)
            entry = write_shard(folder / "000000.tar", samples)
            write_index(
                folder,
                [entry],
                kind="tokens",
                source=name,
                split=split,
                tokenizer=tokenizer.describe(),
                dtype="uint16",
            )
    return root


@pytest.fixture
def byte_data():
    return ByteData


@pytest.fixture
def byte_model():
    return ByteModel


@pytest.fixture
def make_trainer(tmp_path):
    """Makes quiet CPU trainers that log every step to `metrics.csv` below the test's folder."""

    def make(*callbacks, name="run", **arguments):
        logger = CSVLogger(tmp_path / name, name="", version="", flush_logs_every_n_steps=1)
        settings = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": logger,
            "log_every_n_steps": 1,
            "max_steps": 3,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path / name,
            "callbacks": [ResumeStream(), *callbacks],
        }
        return pl.Trainer(**{**settings, **arguments})

    return make


@pytest.fixture
def read_metrics(tmp_path):
    """Reads what a trainer of `make_trainer` logged: (step, value) pairs by key."""
    import csv

    def read(name="run"):
        metrics = {}
        with (tmp_path / name / "metrics.csv").open() as file:
            for row in csv.DictReader(file):
                for key, value in row.items():
                    if value and key not in ("step", "epoch"):
                        metrics.setdefault(key, []).append((int(row["step"]), float(value)))
        return metrics

    return read
