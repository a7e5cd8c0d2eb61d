"""LightningModules of one's own around networks of torchvision and timm, for `lit-valuation query`, `select`, `rank`.

`python examples/own_module.py PREPARED own.ckpt` trains torchvision's ResNet-18 on images that `lit-valuation prepare`
wrote to the folder PREPARED, with a Trainer and loaders that know nothing of us; with the name of a network of timm as
a third argument, such as resnet10t, it trains that. Then, with this folder on PYTHONPATH:

    lit-valuation query --model own_module.ResNet --ckpt_path own.ckpt --data PREPARED --to '[north]' --output query
"""

import sys

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lit_valuation.data.labelled_sets import LabelledSet


def timm_network(name: str, n_classes: int) -> nn.Module:
    """Return a network of timm without pretrained weights, whose last layer is linear."""
    try:
        import timm
    except ImportError as error:
        raise ImportError(f'networks of timm need the extra: pip install "lit-shift[vision]" ({error})') from error
    return timm.create_model(name, num_classes=n_classes)


def resnet(n_classes: int) -> nn.Module:
    """Return torchvision's ResNet-18 without pretrained weights."""
    try:
        from torchvision.models import resnet18
    except ImportError as error:
        raise ImportError(f'ResNet needs the extra: pip install "lit-shift[vision]" ({error})') from error
    return resnet18(num_classes=n_classes)


class OfImages(pl.LightningModule):
    """Trains a network on images of any size, grey or in colours.

    Args:
        network: Maps images in colours to the logits of its last linear layer.
        lr: Learning rate of SGD, which falls to a tenth after half of the epochs.
        epochs: Number of epochs that it is trained for.
    """

    def __init__(self, network: nn.Module, lr: float, epochs: int) -> None:
        super().__init__()
        self.network, self.lr, self.epochs = network, lr, epochs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of the network's last layer, which is what our commands need."""
        return self.network(x.expand(-1, 3, -1, -1))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Train on pairs; mappings with ``x`` and ``y`` would do as well."""
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.StepLR]]:
        """Train all weights."""
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, max(1, self.epochs // 2))]


class ResNet(OfImages):
    """torchvision's ResNet-18 with as many classes."""

    def __init__(self, n_classes: int, lr: float = 0.05, epochs: int = 8) -> None:
        super().__init__(resnet(n_classes), lr, epochs)
        self.save_hyperparameters()


class Timm(OfImages):
    """A network of timm by its name, with as many classes."""

    def __init__(self, n_classes: int, name: str = "resnet10t", lr: float = 0.05, epochs: int = 8) -> None:
        super().__init__(timm_network(name, n_classes), lr, epochs)
        self.save_hyperparameters()


def main(prepared: str, checkpoint: str, name: str | None = None) -> None:
    """Train on the images of a folder that `lit-valuation prepare` wrote."""
    samples = LabelledSet(f"{prepared}/train").load()
    pl.seed_everything(0)
    module = ResNet(len(samples.classes)) if name is None else Timm(len(samples.classes), name)
    trainer = pl.Trainer(max_epochs=module.epochs, logger=False, enable_checkpointing=False)
    trainer.fit(module, DataLoader(TensorDataset(samples.inputs(), samples.y), batch_size=32, shuffle=True))
    trainer.save_checkpoint(checkpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
