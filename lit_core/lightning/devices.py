"""Devices of a command that runs without a Trainer, and the division of its samples among them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from lit_core.errors import require


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

    def launch(self) -> Fabric:
        """Start the other processes and return the Fabric of this one."""
        fabric = Fabric(**self.arguments())
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
