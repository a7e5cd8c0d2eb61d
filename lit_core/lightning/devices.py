"""Devices of a run, and of a command without a Trainer; the division of its samples among them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch import Tensor

from lit_core.errors import UserError, require

#: Precisions of computations under `Fabric.autocast`, in which the weights stay what they are.
AUTOCAST = ("16-mixed", "bf16-mixed")


@dataclass(frozen=True)
class Devices:
    """Devices of a verb, in the terms of Lightning's Trainer.

    Args:
        devices: Number of devices or processes; -1 for all devices.
        accelerator: Kind of device, such as cpu, gpu or auto.
        strategy: How several devices work together, such as ddp or auto.
        precision: Precision of weights and computation, such as 32-true or bf16-mixed.
    """

    devices: int = 1
    accelerator: str = "auto"
    strategy: str = "auto"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        require(self.devices == -1 or 1 <= self.devices < math.inf, "devices", self.devices, "1 or more, or -1 for all")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a Trainer or of Fabric."""
        return asdict(self)

    def fabric(self) -> Fabric:
        """Return the Fabric of these devices, without starting other processes.

        Raises:
            UserError: If Lightning knows no such devices, or this machine does not have them.
        """
        try:
            return Fabric(**self.arguments())
        except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
            raise UserError(f"`trainer` is {self.arguments()}, but there are no such devices: {error}") from error

    def launch(self, precisions: tuple[str, ...] = ()) -> Fabric:
        """Start the other processes and return the Fabric of this one.

        Args:
            precisions: Precisions in which the caller can compute, beside 32-true.

        Raises:
            UserError: If there are no such devices, or the caller does not compute in their precision.
        """
        known = ("32-true", *precisions)
        require(self.precision in known, "`trainer.precision`", self.precision, f"{' or '.join(known)} here")
        fabric = self.fabric()
        fabric.launch()
        return fabric


def share(n: int, rank: int, world_size: int) -> range:
    """Return the indices, out of ``range(n)``, of the samples of a rank: the rank-th of equal blocks."""
    size = -(-n // world_size)
    return range(min(rank * size, n), min((rank + 1) * size, n))


def gather_shares(fabric: Fabric, part: Tensor, n: int) -> Tensor:
    """Gather the rows of all ranks on the CPU, ordered by sample index.

    Args:
        fabric: The process group.
        part: The rows of this rank's `share`.
        n: Number of samples over all ranks.

    Returns:
        The rows of all samples, shape ``(n, ...)``, on the CPU.
    """
    if fabric.world_size == 1:
        return part.cpu()
    size = -(-n // fabric.world_size)
    padded = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])]).to(fabric.device)
    gathered = fabric.all_gather(padded)
    assert isinstance(gathered, Tensor)
    return gathered.flatten(0, 1)[:n].cpu()


def devices_of(trainer: Trainer) -> dict[str, Any]:
    """Return the devices of a run, their strategy and the precision."""
    device = trainer.strategy.root_device
    return {
        "accelerator": type(trainer.accelerator).__name__.removesuffix("Accelerator").lower(),
        "devices": trainer.world_size,
        "nodes": trainer.num_nodes,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "strategy": type(trainer.strategy).__name__,
        "precision": trainer.precision,
    }


def device_named(device: str) -> str:
    """Return the name of a device of this machine.

    Args:
        device: Such as cpu or cuda:0; auto is the first GPU if there is one.

    Raises:
        UserError: If this machine does not have it.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either, and describes at length
        raise UserError(f"device is {device}, which this machine does not have; give another, such as cpu.") from error
    return device
