"""GradientMatching on a LightningModule of one's own: an eighth of the digits stands for all of them.

The module knows nothing of weights: samples are drawn in proportion to them. To be run by
`python examples/gradient_matching.py`; needs scikit-learn, from the extra lit-shift[valuation].
"""

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_valuation import GradientMatching


class MyClassifier(pl.LightningModule):
    """Reads a digit of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, which is what the callback needs."""
        return self.layers(x)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Train on pairs."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Train all weights."""
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def main(folder: str = "runs/examples/gradient_matching") -> None:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(digits.images, dtype=torch.float32)[order] / 16, torch.tensor(digits.target)[order]
    train, held_out = TensorDataset(x[:1200], y[:1200]), TensorDataset(x[1200:], y[1200:])
    pl.seed_everything(0)
    # the pool is read in its order and without augmentation; the samples chosen from it are what is trained on
    matching = GradientMatching(budget=150, every_n_epochs=10, pool=DataLoader(train, 256))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=40,
        check_val_every_n_epoch=40,
        log_every_n_steps=1,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[matching],
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(MyClassifier(), DataLoader(train, 50, shuffle=True), DataLoader(held_out, 1024))
    print(f"chosen: {len(matching.numbers)} of {len(train)} samples, weights up to {matching.weights.max():.1f}")
    print(f"accuracy on held-out digits: {trainer.callback_metrics['accuracy']:.3f}")
    print(f"all numbers: {folder}/metrics.csv")


if __name__ == "__main__":
    main()
