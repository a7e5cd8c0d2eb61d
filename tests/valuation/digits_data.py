"""scikit-learn's digits as somebody else's DataModule, read through our streams."""

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lit_core.data import EvalStream, ShardStream, StreamLoader


def digits():
    """Return 1,797 images of shape (1, 8, 8) in [0, 1], and their classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)


class Part:
    """Some of the digits as a source of samples."""

    def __init__(self, start, stop, targets=lambda x, y: y):
        x, y = (tensor[start:stop] for tensor in digits())
        self.x, self.y = x, targets(x, y)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return {"x": self.x[index], "y": self.y[index], "index": index}


class DigitsData(pl.LightningDataModule):
    """Digits, 300 to train on, 203 to validate and 101 to test on.

    Args:
        batch_size: Samples per optimizer step.
        micro_batch_size: Samples per device and forward pass.
        names: Names of the classes.
        num_workers: Processes that read.
    """

    input_shape = (1, 8, 8)

    def __init__(
        self,
        batch_size: int = 32,
        micro_batch_size: int = 16,
        names: str = "0123456789",
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.batch_size, self.micro_batch_size, self.num_workers = batch_size, micro_batch_size, num_workers
        self.classes = tuple(names)

    def setup(self, stage):
        trainer = self.trainer
        self.layout = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        self.stream = ShardStream(
            self.part(0, 300),
            "digits",
            global_batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            **self.layout,
        )
        if stage == "fit":
            trainer.accumulate_grad_batches = self.stream.accumulation

    def part(self, start, stop):
        return Part(start, stop)

    def train_dataloader(self):
        return StreamLoader(self.stream, num_workers=self.num_workers)

    def evaluation(self, start, stop):
        return StreamLoader(EvalStream(self.part(start, stop), 64, **self.layout))

    def val_dataloader(self):
        return {"held_out": self.evaluation(300, 503)}

    def test_dataloader(self):
        return {"held_out": self.evaluation(503, 604)}

    def predict_dataloader(self):
        return self.evaluation(503, 604)

    def selection_dataloader(self):
        return self.evaluation(0, 300)


class DigitValues(DigitsData):
    """The same digits, whose targets are the ink and the number itself."""

    target = "values"

    def __init__(self, batch_size: int = 32, micro_batch_size: int = 16) -> None:
        super().__init__(batch_size, micro_batch_size)
        self.classes = ("ink", "digit")

    def part(self, start, stop):
        return Part(start, stop, lambda x, y: torch.stack([x.sum((1, 2, 3)), y.float()], 1))

    def target_statistics(self):
        y = self.part(0, 300).y
        return y.mean(0), y.std(0)


class DigitLabels(DigitsData):
    """The same digits, whose labels are even and large."""

    target = "labels"

    def __init__(self, batch_size: int = 32, micro_batch_size: int = 16) -> None:
        super().__init__(batch_size, micro_batch_size)
        self.classes = ("even", "large")

    def part(self, start, stop):
        return Part(start, stop, lambda x, y: torch.stack([y % 2 == 0, y > 4], 1).float())


class DigitTags(DigitsData):
    """The same digits, read as 64 tokens, the brightness of their pixels; a tag says whether there is ink."""

    input_shape, target = (64,), "tags"

    def __init__(self, batch_size: int = 32, micro_batch_size: int = 16) -> None:
        super().__init__(batch_size, micro_batch_size)
        self.classes = ("paper", "ink")

    def part(self, start, stop):
        part = Part(start, stop)
        part.x = (part.x * 16).long().flatten(1)
        part.y = (part.x > 0).long()
        return part


class PlainDigits(pl.LightningDataModule):
    """The same as pairs from torch's own loaders."""

    def part(self, start, stop, **options):
        x, y = digits()
        return DataLoader(TensorDataset(x[start:stop], y[start:stop]), **options)

    def train_dataloader(self):
        return self.part(0, 300, batch_size=16, shuffle=True)

    def val_dataloader(self):
        return self.part(300, 503, batch_size=64)

    def selection_dataloader(self):
        return self.part(0, 300, batch_size=64)
