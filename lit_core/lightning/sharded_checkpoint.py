"""Checkpoints of models whose weights are sharded over devices, as one file or as a folder with a part per device.

Both kinds hold what a plain checkpoint of Lightning holds, an optimizer's states by the number of their parameter, so
that any number of devices can go on from either. A folder has one file ``meta.pt``, a checkpoint with shapes in the
place of the divided tensors, and one file per device with its parts of them. All is data: nothing is unpickled.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_core.errors import UserError
from lit_core.files.paths import former_of, sync_folder, undo_torn_replacement
from lit_core.lightning.checkpoint import (
    META,
    AtomicCheckpointIO,
    checkpoint_facts,
    is_checkpoint_folder,
    load_checkpoint_file,
)

#: Name of a device's file in a checkpoint folder.
PART = "part_{:05d}.pt"


class ScatteredTensor:
    """A tensor in parts, each mapped from the file of the device that wrote it.

    Args:
        like: Shape and number format, on the meta device.
        parts: The parts and where they begin in each dimension.
    """

    def __init__(self, like: Tensor, parts: list[tuple[tuple[int, ...], Tensor]]) -> None:
        self.shape = like.shape
        self._dtype = like.dtype
        self._parts = parts

    def whole(self) -> Tensor:
        """Read it all."""
        return self[tuple(slice(0, length) for length in self.shape)]

    def __getitem__(self, region: tuple[slice, ...]) -> Tensor:
        """Read a region, given by a slice for each dimension."""
        wanted = torch.empty([part.stop - part.start for part in region], dtype=self._dtype)
        for start, part in self._parts:
            theirs, mine = [], []
            for bounds, begin, length in zip(region, start, part.shape, strict=True):
                first, last = max(bounds.start, begin), min(bounds.stop, begin + length)
                theirs.append(slice(first - begin, max(last, first) - begin))
                mine.append(slice(first - bounds.start, max(last, first) - bounds.start))
            wanted[tuple(mine)] = part[tuple(theirs)]
        return wanted


def region_of(tensor: DTensor) -> tuple[slice, ...]:
    """Return which part of a tensor this device has: a slice for each dimension.

    Args:
        tensor: Divided over a mesh whose last dimension divided it first, as FSDP2 does with what it finds divided.
    """
    bounds = [(0, length) for length in tensor.shape]
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None, "this device is not in the tensor's mesh"
    for dim in reversed(range(len(coordinate))):
        placement = tensor.placements[dim]
        if not placement.is_replicate():
            dim = placement.dim  # type: ignore[attr-defined]  # mypy does not see that it is a Shard
            first, last = bounds[dim]
            size = -(-(last - first) // tensor.device_mesh.size(dim))
            first = min(first + coordinate[dim] * size, last)
            bounds[dim] = first, min(first + size, last)
    assert tuple(last - first for first, last in bounds) == tensor.to_local().shape
    return tuple(slice(first, last) for first, last in bounds)


def divided_like(whole: Any, own: Tensor) -> Any:
    """Return a tensor divided as one's own is, without communication: each device reads its part.

    Args:
        whole: A tensor, or a `ScatteredTensor`.
        own: A tensor of the same shape.

    Returns:
        A copy of the part as a DTensor where `own` is one; the tensor itself where `own` is a plain one.
    """
    if not isinstance(own, DTensor):
        return whole.whole() if isinstance(whole, ScatteredTensor) else whole
    divided: Any = torch.empty_like(own, requires_grad=False)
    divided.to_local().copy_(whole[region_of(own)])
    return divided


def gather_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint with whole tensors on the CPU; all devices must call it, and all but the first get none.

    Args:
        checkpoint: A checkpoint with divided tensors.
    """
    keep = torch.distributed.get_rank() == 0

    def gather(_: str, leaf: Any) -> Any:
        if not isinstance(leaf, DTensor):
            return leaf
        whole = leaf.full_tensor()  # one after the other, so that never more than one is whole on a device
        return whole.cpu() if keep else None

    return dict(_map(checkpoint, gather))


def write_parts(checkpoint: dict[str, Any], folder: Path, rank: int, world_size: int) -> None:
    """Write a device's parts of a checkpoint; the first one writes the rest as well.

    Args:
        checkpoint: A checkpoint with divided tensors.
        folder: An existing folder.
        rank: Number of this device.
        world_size: Number of devices.
    """
    parts: dict[str, Any] = {}

    def part(path: str, leaf: Any) -> Any:
        if not isinstance(leaf, DTensor):
            return leaf
        start = [bounds.start for bounds in region_of(leaf)]
        parts[path] = {"start": start, "part": leaf.to_local().detach().cpu().clone()}
        return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta")

    rest = _map(checkpoint, part)
    writer = AtomicCheckpointIO()
    writer.save_checkpoint(parts, folder / PART.format(rank))
    if rank == 0:
        writer.save_checkpoint({**rest, "parts": world_size}, folder / META)


def replace_whole(target: Path, whole: Path) -> None:
    """Give a whole file or folder its name, in the place of a former file or folder of that name.

    Args:
        target: The name.
        whole: The file or folder, beside it.
    """
    former = former_of(target)
    undo_torn_replacement(target)  # of a process that was killed here
    shutil.rmtree(former, ignore_errors=True)
    if target.exists():
        target.rename(former)
    whole.rename(target)
    sync_folder(target.parent)
    if former.is_dir():
        shutil.rmtree(former)
    former.unlink(missing_ok=True)


def load_checkpoint_parts(path: str | Path, argument: str = "--ckpt_path") -> dict[str, Any]:
    """Read a checkpoint, file or folder, so that a device reads of its tensors only what it needs.

    Args:
        path: The file, or the folder that several devices wrote.
        argument: Name of the argument that gave the path, for the message.

    Returns:
        The checkpoint; tensors are mapped from the file, or are each a `ScatteredTensor`.

    Raises:
        UserError: If there is no such checkpoint, or a part of it is missing.
    """
    path = Path(path)
    undo_torn_replacement(path)
    if not is_checkpoint_folder(path):
        return load_checkpoint_file(path, argument)
    meta = checkpoint_facts(path, argument)
    scattered: dict[str, list[tuple[tuple[int, ...], Tensor]]] = {}
    for rank in range(meta.pop("parts")):
        file = path / PART.format(rank)
        try:
            parts = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # whatever a damaged file makes torch raise
            raise UserError(
                f"{argument} is {path}, but its file {file.name} is missing or torn; copy the whole folder again, or "
                "give another checkpoint."
            ) from error
        for name, part in parts.items():
            scattered.setdefault(name, []).append((tuple(part["start"]), part["part"]))

    def find(name: str, leaf: Any) -> Any:
        divided = isinstance(leaf, Tensor) and leaf.is_meta
        return ScatteredTensor(leaf, scattered[name]) if divided else leaf

    return dict(_map(meta, find))


def consolidate(ckpt_path: str, output: str) -> None:
    """Make one file of a checkpoint folder that several devices wrote, for one device, DDP, generate and export.

    Args:
        ckpt_path: The folder.
        output: The checkpoint file to be written; the whole checkpoint is in memory for a while.

    Raises:
        UserError: If there is no such folder, a part of it is missing, or the output exists.
    """
    if not is_checkpoint_folder(Path(ckpt_path)):
        raise UserError(
            f"ckpt_path is {ckpt_path}, which is not a folder with the parts of a checkpoint; a checkpoint that is a "
            "file needs no consolidation."
        )
    if Path(output).exists():
        raise UserError(f"output is {output}, which exists already; give another name or remove it.")
    checkpoint = load_checkpoint_parts(ckpt_path, "ckpt_path")
    whole = _map(checkpoint, lambda _, leaf: leaf.whole() if isinstance(leaf, ScatteredTensor) else leaf)
    AtomicCheckpointIO().save_checkpoint(whole, output)
    print(f"Wrote {output}")


def _map(tree: Any, function: Callable[[str, Any], Any], path: str = "") -> Any:
    """Return a tree of mappings and lists with each leaf replaced by a function of its path and itself."""
    if isinstance(tree, Mapping):
        return {key: _map(value, function, f"{path}/{key}") for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_map(value, function, f"{path}/{index}") for index, value in enumerate(tree))
    return function(path, tree)
