"""LightningModules of somebody else, as tutorials write them, and what each of them lacks of our contract."""

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional as F


class Digits(LightningModule):
    """Trains on pairs, with a rate that falls after each epoch."""

    def __init__(self, width: int = 16, lr: float = 0.1, n_classes: int = 10):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, n_classes))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Mapped(Digits):
    """Trains on mappings."""

    classes = tuple("0123456789")

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["x"]), batch["y"])


class OneArgument(LightningModule):
    """Takes all hyperparameters as one argument."""

    def __init__(self, hparams: dict):
        super().__init__()
        self.save_hyperparameters(hparams)
        self.net = nn.Linear(64, hparams["outputs"])

    def forward(self, x):
        return self.net(x.flatten(1))


class Seeded(LightningModule):
    """Draws its weights by a seed of its own, and keeps a list as it is given."""

    def __init__(self, widths: list[int] = [6], seed: int = 5):  # noqa: B006
        super().__init__()
        self.save_hyperparameters()
        self.widths, self.seed = widths, seed
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(64, 10))


class NoForward(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(64, 10)


class Probabilities(Digits):
    def forward(self, x):
        return self.net(x).softmax(1)


class NoLinear(NoForward):
    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(1, 10, 8)

    def forward(self, x):
        return self.net(x).flatten(1)


class Pair(Digits):
    def forward(self, x):
        return self.net(x), x


class Colours(NoForward):
    def forward(self, x):
        return self.net(x.flatten(1).repeat(1, 3))


class Numbers(Digits):
    classes = tuple(range(10))


class Focal(nn.Module):
    pass


class OtherLoss(Digits):
    def __init__(self):
        super().__init__()
        self.loss = Focal()


class Weighted(Digits):
    def __init__(self):
        super().__init__()
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(10))


class Smoothed(Digits):
    def __init__(self):
        super().__init__()
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.2)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self(x), y)


class NoStep(NoForward):
    def forward(self, x):
        return self.net(x.flatten(1))


class Fails(NoStep):
    def training_step(self, batch, batch_idx):
        raise KeyError("image")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Plateau(Mapped):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


def smoothed_or_not(smooth: bool) -> Digits:
    """Return one of two modules."""
    return Smoothed() if smooth else Digits()
