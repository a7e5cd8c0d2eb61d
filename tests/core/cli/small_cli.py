"""A command line over a model with nested arguments, a link and a verb."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from lit_core.cli import LitCLI, run
from lit_core.cli.show import show
from lit_core.errors import UserError


@dataclass
class Shape:
    """Shape of the network.

    Args:
        vocab: Linked to the data.
        width: Width of the network, in units.
    """

    vocab: int = 3
    width: int = 4

    def __post_init__(self):
        if self.width > 100:
            raise UserError(f"`width` is {self.width}, but must be at most 100; lower it.")


class Part:
    """A part that is built from two numbers."""

    def __init__(self, first: int, second: int, tolerance: float = 0.1):
        self.tolerance = tolerance


class SmallModel(BoringModel):
    """A linear layer with arguments.

    Args:
        shape: Shape of the network.
        part: Builds the part.
        sleep: Seconds that each step takes.
        nan_at: Step whose loss is NaN; None for none.
    """

    def __init__(
        self, shape: Shape, part: Callable[[int, int], Part] = Part, sleep: float = 0.0, nan_at: int | None = None
    ):
        super().__init__()
        self.shape, self.sleep, self.nan_at = shape, sleep, nan_at

    def training_step(self, batch, batch_idx):
        time.sleep(self.sleep)
        loss = super().training_step(batch, batch_idx)["loss"]
        if self.trainer.global_step == self.nan_at:
            loss = loss * torch.nan
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        loss = super().validation_step(batch, batch_idx)["x"]
        self.log("val/loss", loss)

    def test_step(self, batch, batch_idx):
        self.log("test/width", float(self.shape.width))


class SmallData(BoringDataModule):
    """Random vectors.

    Args:
        size: A number.
    """

    vocab_size = 7

    def __init__(self, size: int = 3):
        super().__init__()
        if size < 0:
            raise UserError(f"`size` is {size}, but must be 0 or more; raise it.")


def count(start: int = 1, name: str = "x"):
    """Count.

    Args:
        start: Where to start.
        name: What to count.
    """
    print("counted", start, name)


def main(args=None):
    """Run the command line."""
    links = {"data.vocab_size": "model.init_args.shape.vocab"}
    verbs = {"count": count, "show": show}
    return run("lit-small", lambda args: LitCLI("small", SmallModel, SmallData, links, args), verbs, args)
