"""MoEFeedForward inside a network of one's own: a small vision transformer reads handwritten digits.

Its blocks take `MoEFeedForward` for their feed-forward layer, its LightningModule adds the routers' losses, and the
callback RouterBalance finds the layers. To be run by `python examples/moe_in_a_vision_transformer.py`; needs
scikit-learn, from the extra lit-shift[valuation].
"""

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_moe import RouterBalance
from lit_moe.nn import MoEConfig, MoEFeedForward, PenaltyRouter, auxiliary_losses

WIDTH, PATCH = 48, 2


class Block(nn.Module):
    """Attention between patches, then a mixture of experts for each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.attention = nn.MultiheadAttention(WIDTH, num_heads=4, batch_first=True)
        self.mix = MoEFeedForward(WIDTH, MoEConfig(n_experts=8, top_k=2, expert_width=48), PenaltyRouter)

    def forward(self, x: Tensor) -> Tensor:
        """Transform patches of shape ``(batch, patches, width)``."""
        seen = self.norms[0](x)
        x = x + self.attention(seen, seen, seen, need_weights=False)[0]
        return x + self.mix(self.norms[1](x))


class VisionTransformer(nn.Module):
    """Reads a digit of 8 x 8 pixels from its sixteen patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, WIDTH, PATCH, stride=PATCH)
        self.place = nn.Parameter(torch.randn((8 // PATCH) ** 2, WIDTH) * 0.02)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape ``(batch, 10)``."""
        patches = self.embed(images).flatten(2).transpose(1, 2) + self.place
        return self.head(self.blocks(patches).mean(1))


class MyClassifier(pl.LightningModule):
    """Trains the transformer; knows nothing of experts but that they have losses."""

    def __init__(self) -> None:
        super().__init__()
        self.network = VisionTransformer()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Add the routers' own losses; the callback never does."""
        return F.cross_entropy(self.network(batch[0]), batch[1]) + auxiliary_losses(self)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        self.log("accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Train all weights."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(folder: str = "runs/examples/moe_in_a_vision_transformer") -> None:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(digits.images, dtype=torch.float32)[order, None] / 16
    y = torch.tensor(digits.target)[order]
    pl.seed_everything(0)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=15,
        check_val_every_n_epoch=5,
        log_every_n_steps=19,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[RouterBalance()],
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    held_out = {"digits": DataLoader(TensorDataset(x[1200:], y[1200:]), 1000)}
    trainer.fit(MyClassifier(), DataLoader(TensorDataset(x[:1200], y[:1200]), 64, shuffle=True), held_out)

    metrics = trainer.callback_metrics
    print(f"accuracy on held-out digits: {metrics['accuracy']:.3f}")
    print(f"MRI {metrics['val/digits/router/mri/mean']:.3f}, floor {metrics['val/router/mri_floor']:.3f}")
    print(f"all numbers: {folder}/metrics.csv")


if __name__ == "__main__":
    main()
