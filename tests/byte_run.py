"""A model and a DataModule of somebody else's, that happen to hold parts of ours: bytes of the standard library."""

import argparse
import inspect
import textwrap

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional as F

from lit_core.data import EvalStream, MixtureStream, StreamLoader
from lit_moe.nn import MoEConfig, MoEFeedForward, PenaltyRouter, auxiliary_losses


class ByteWindows:
    """Windows over the bytes of a text, as a source of samples."""

    def __init__(self, text, length=16, limit=None):
        self.rows = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()
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
