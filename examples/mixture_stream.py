"""MixtureStream in a LightningDataModule of one's own: new data with 30 % replay, resumable at any step.

A sample is any dict, here a row of bytes. Run `python examples/mixture_stream.py`.
"""

import argparse
import inspect
import textwrap
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F

from lit_core.data import MixtureStream, ResumeStream, StreamLoader
from lit_moe.callbacks import ReplayMixing


class MyRows:
    """Rows of nine bytes: anything with a length whose items are dicts will do."""

    def __init__(self, text: str) -> None:
        self.rows = torch.tensor(list(text.encode())).unfold(0, 9, 4)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.rows[index, :8], "y": self.rows[index, 8]}


class MyData(pl.LightningDataModule):
    """Learns code, replays prose."""

    def setup(self, stage: str) -> None:
        """Build the stream, which has to know which of how many devices it serves."""
        assert self.trainer is not None
        self.stream = MixtureStream(
            new={"code": MyRows(inspect.getsource(argparse))},
            replay={"prose": MyRows(inspect.getsource(textwrap))},
            global_batch_size=64,
            micro_batch_size=16,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        self.trainer.accumulate_grad_batches = self.stream.accumulation

    def train_dataloader(self) -> StreamLoader:
        """Return the loader; `ResumeStream` tells it where to begin, `ReplayMixing` how much to replay."""
        return StreamLoader(self.stream)


class MyModel(pl.LightningModule):
    """Predicts a byte from the eight before it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Embedding(256, 16), nn.Flatten(), nn.Linear(128, 256))

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss of a micro-batch."""
        return F.cross_entropy(self.net(batch["x"]), batch["y"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Train all weights."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def train(folder: str, max_steps: int, ckpt_path: str | None = None) -> tuple[pl.Trainer, MyModel]:
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        log_every_n_steps=10,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[ResumeStream(), ReplayMixing(0.3)],
        enable_model_summary=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    model = MyModel()
    trainer.fit(model, datamodule=MyData(), ckpt_path=ckpt_path, weights_only=True)
    return trainer, model


def main(folder: str = "runs/examples/mixture_stream") -> None:
    trainer, whole = train(f"{folder}/whole", 40)
    drawn = {key: float(value) for key, value in trainer.callback_metrics.items()}
    print(f"drawn: {drawn['train/code/samples']:.0f} rows of code, {drawn['train/prose/samples']:.0f} of prose")

    stopped, _ = train(f"{folder}/stopped", 25)
    checkpoint = Path(folder) / "stopped.ckpt"
    stopped.save_checkpoint(checkpoint)
    _, resumed = train(f"{folder}/resumed", 40, str(checkpoint))
    same = all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    print(f"stopped and resumed: weights {'equal' if same else 'differ from'} those of the run that never stopped")
    assert same


if __name__ == "__main__":
    main()
