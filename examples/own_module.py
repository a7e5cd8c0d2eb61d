"""A LightningModule of one's own around torchvision's ResNet-18, for `lit-valuation query`, `select` and `rank`.

`python examples/own_module.py PREPARED own.ckpt` trains it on images that `lit-valuation prepare` wrote to the folder
PREPARED, with a Trainer and loaders that know nothing of us. It needs torchvision, which none of our extras
brings. Then, with this folder on PYTHONPATH:

    lit-valuation query --model own_module.ResNet --ckpt_path own.ckpt --data PREPARED --to '[north]' --output query
"""

import sys

import lightning.pytorch as pl
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from lit_valuation.data.labelled_sets import LabelledSet


class ResNet(pl.LightningModule):
    """Classifies images of any size, grey or in colours.

    Args:
        n_classes: Number of classes.
        lr: Learning rate of SGD, which falls to a tenth after half of the epochs.
        epochs: Number of epochs that it is trained for.
    """

    def __init__(self, n_classes: int, lr: float = 0.05, epochs: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = resnet18(num_classes=n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of the network's last layer, which is what our commands need."""
        return self.network(x.expand(-1, 3, -1, -1))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Train on pairs; mappings with ``x`` and ``y`` would do as well."""
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.StepLR]]:
        """Train all weights."""
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, max(1, self.hparams["epochs"] // 2))]


def main(prepared: str, checkpoint: str) -> None:
    """Train on the images of a folder that `lit-valuation prepare` wrote."""
    samples = LabelledSet(f"{prepared}/train").load()
    pl.seed_everything(0)
    module = ResNet(len(samples.classes))
    trainer = pl.Trainer(max_epochs=module.hparams["epochs"], logger=False, enable_checkpointing=False)
    trainer.fit(module, DataLoader(TensorDataset(samples.inputs(), samples.y), batch_size=32, shuffle=True))
    trainer.save_checkpoint(checkpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
