"""RouterBalance and Forgetting on a LightningModule of one's own, here a byte-level model of the standard library.

The module only has to hold `MoEFeedForward` layers and to log `val/{source}/loss`. To be run by
`python examples/router_balance.py`.
"""

import argparse
import inspect
import textwrap

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_moe.callbacks import Forgetting, RouterBalance
from lit_moe.nn import MoEConfig, MoEFeedForward, PenaltyRouter, auxiliary_losses


class MyModel(pl.LightningModule):
    """Predicts a byte from the eight before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, 16)
        self.mix = MoEFeedForward(128, MoEConfig(n_experts=8, top_k=2, expert_width=64), PenaltyRouter)
        self.head = nn.Linear(128, 256)

    def loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Return nats per byte."""
        rows = batch[0].long()
        x = self.embed(rows[:, :8]).flatten(1)
        return F.cross_entropy(self.head(x + self.mix(x)), rows[:, 8])

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Add the routers' own losses; the callbacks never do."""
        return self.loss(batch) + auxiliary_losses(self)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log the loss under the name of its source, which is what `Forgetting` reads."""
        source = list(self.trainer.val_dataloaders)[dataloader_idx]
        self.log(f"val/{source}/loss", self.loss(batch), add_dataloader_idx=False, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Train all weights."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def windows(text: str) -> TensorDataset:
    return TensorDataset(torch.tensor(list(text.encode()), dtype=torch.uint8).unfold(0, 9, 9))


def main(folder: str = "runs/examples/router_balance") -> None:
    code, prose = windows(inspect.getsource(argparse)), windows(inspect.getsource(textwrap))
    model = MyModel()
    quiet = {"accelerator": "cpu", "enable_model_summary": False, "enable_checkpointing": False}
    validation = {"prose": DataLoader(prose, 1024), "code": DataLoader(code, 1024)}

    before = pl.Trainer(max_epochs=5, logger=False, limit_val_batches=0, **quiet)
    before.fit(model, DataLoader(prose, 64, shuffle=True))
    forgetting = Forgetting(old=["prose"], new=["code"])
    trainer = pl.Trainer(
        max_steps=100,
        val_check_interval=50,
        log_every_n_steps=20,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[RouterBalance(), forgetting],
        num_sanity_val_steps=0,
        **quiet,
    )
    trainer.fit(model, DataLoader(code, 64, shuffle=True), validation)

    metrics = trainer.callback_metrics
    print(f"prose forgotten: {metrics['val/prose/forgetting']:+.3f} nats per byte")
    print(f"code learnt: {metrics['val/code/adaptation']:+.3f} nats per byte")
    print(f"MRI on prose {metrics['val/prose/router/mri/mean']:.3f}, floor {metrics['val/router/mri_floor']:.3f}")
    print(f"all numbers: {folder}/metrics.csv")


if __name__ == "__main__":
    main()
