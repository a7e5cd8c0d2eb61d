"""Checkpoints of models whose weights are sharded over devices, as one file or as a folder with a part per device.

Both kinds hold what a plain checkpoint of Lightning holds, with an optimizer's states by parameter index, so any number
of devices can resume from either. A folder has a file ``meta.pt``, a checkpoint whose divided tensors are on the meta
device, and a file per device with its parts of these tensors. All files are read without executing code from them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_core import record
from lit_core.errors import UserError
from lit_core.files.outputs import output_file
from lit_core.files.paths import undo_torn_replacement
from lit_core.lightning.checkpoint import (
    META,
    AtomicCheckpointIO,
    is_checkpoint_folder,
    read_checkpoint_facts,
    read_checkpoint_file,
    streamed_file,
)
from lit_core.lightning.checksums import check_content
from lit_core.screen import say

#: Name of a device's file in a checkpoint folder.
PART = "part_{:05d}.pt"
#: Key of what tells the files of one write from those of another: the step, and a name of the write.
STAMP = "written_at"


class ScatteredTensor:
    """A tensor in several parts, each mapped from the file of the device that wrote it.

    Args:
        like: A tensor on the meta device with shape and dtype of the whole.
        parts: Offset in each dimension, and values, of each part.
    """

    def __init__(self, like: Tensor, parts: list[tuple[tuple[int, ...], Tensor]]) -> None:
        self.shape = like.shape
        self.dtype = like.dtype
        self._parts = parts

    def fill(self, target: Tensor) -> None:
        """Copy the whole tensor into another one, part by part."""
        for start, part in self._parts:
            target[tuple(slice(first, first + length) for first, length in zip(start, part.shape, strict=True))] = part

    def whole(self) -> Tensor:
        """Return the whole tensor, on the CPU."""
        return self[tuple(slice(0, length) for length in self.shape)]

    def __getitem__(self, region: tuple[slice, ...]) -> Tensor:
        """Return a region of the tensor, given by a slice for each dimension, on the CPU."""
        values = torch.empty([part.stop - part.start for part in region], dtype=self.dtype)
        for start, part in self._parts:
            in_part, in_region = [], []
            for bounds, begin, length in zip(region, start, part.shape, strict=True):
                first, last = max(bounds.start, begin), min(bounds.stop, begin + length)
                in_part.append(slice(first - begin, max(last, first) - begin))
                in_region.append(slice(first - bounds.start, max(last, first) - bounds.start))
            values[tuple(in_region)] = part[tuple(in_part)]
        return values


def region_of(tensor: DTensor) -> tuple[slice, ...]:
    """Return the region of a divided tensor that this device holds: a slice for each dimension.

    Args:
        tensor: A tensor that the last dimension of its mesh divides first, as FSDP2 arranges it.
    """
    bounds = [(0, length) for length in tensor.shape]
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None, "this device is not in the tensor's mesh"
    for mesh_dim in reversed(range(len(coordinate))):
        placement = tensor.placements[mesh_dim]
        if not placement.is_replicate():
            dim = placement.dim  # type: ignore[attr-defined]  # mypy does not see that it is a Shard
            first, last = bounds[dim]
            size = -(-(last - first) // tensor.device_mesh.size(mesh_dim))
            first = min(first + coordinate[mesh_dim] * size, last)
            bounds[dim] = first, min(first + size, last)
    assert tuple(last - first for first, last in bounds) == tensor.to_local().shape
    return tuple(slice(first, last) for first, last in bounds)


def divided_like(whole: Any, own: Tensor) -> Any:
    """Divide a tensor in the way another one is divided, without communication: each device copies its part.

    Args:
        whole: A tensor, or a `ScatteredTensor`.
        own: A tensor of the same shape, divided or not.

    Returns:
        A DTensor with a copy of this device's part if `own` is a DTensor; otherwise the whole tensor. Its dtype is that
        of the whole.
    """
    if not isinstance(own, DTensor):
        return whole.whole() if isinstance(whole, ScatteredTensor) else whole
    divided: Any = torch.empty_like(own, dtype=whole.dtype, requires_grad=False)
    divided.to_local().copy_(whole[region_of(own)])
    return divided


def write_gathered(checkpoint: dict[str, Any], path: Path, rank: int) -> None:
    """Write a checkpoint with divided tensors as one file, tensor by tensor; all ranks call it.

    At most one whole tensor is in memory; rank 0 writes it into the file before the next one is gathered.

    Args:
        checkpoint: A checkpoint with divided tensors.
        path: The file.
        rank: Rank of this process.

    Raises:
        RunFailure: If the disk is full.
    """
    writing = streamed_file(path, _empty(checkpoint)) if rank == 0 else nullcontext[dict[str, Any]]({})
    with writing as written:
        targets = dict(_tensors(written))
        for name, leaf in _tensors(checkpoint):
            whole = leaf.full_tensor() if isinstance(leaf, DTensor) else leaf
            if rank == 0:
                targets[name].copy_(whole)


def _empty(tree: Any) -> Any:
    """Return a tree with CPU tensors in place of its tensors, for which the system has not provided memory yet."""
    kinds = (Tensor, ScatteredTensor)
    return _map(tree, lambda _, leaf: torch.empty(leaf.shape, dtype=leaf.dtype) if isinstance(leaf, kinds) else leaf)


def _tensors(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a tree, whole, divided or scattered, with their paths."""
    found: list[tuple[str, Any]] = []
    _map(tree, lambda path, leaf: found.append((path, leaf)))
    return ((path, leaf) for path, leaf in found if isinstance(leaf, Tensor | ScatteredTensor))


@dataclass(frozen=True)
class Snapshot:
    """A copy of what a device writes of a checkpoint, which later training steps do not change.

    Attributes:
        step: Optimizer steps of the checkpoint.
        parts: Offset and values of this device's part of each divided tensor, by path.
        rest: Everything else, with divided tensors on the meta device.
    """

    step: int
    parts: dict[str, dict[str, Any]]
    rest: dict[str, Any]

    @classmethod
    def take(cls, checkpoint: dict[str, Any]) -> Snapshot:
        """Copy what this device writes of a checkpoint with divided tensors into the host's memory."""
        copies = {name: {**one, "part": one["part"].to("cpu", copy=True)} for name, one in _parts(checkpoint)}
        return cls(int(checkpoint.get("global_step", 0)), copies, dict(_map(checkpoint, _rest)))

    def again(self, checkpoint: dict[str, Any]) -> Snapshot | None:
        """Return a snapshot of another checkpoint that shares the copies of this one; None if its values differ."""
        parts = dict(_parts(checkpoint))
        if self.step != int(checkpoint.get("global_step", 0)) or not _are_equal(parts, self.parts):
            return None
        return Snapshot(self.step, self.parts, dict(_map(checkpoint, _rest)))

    def write(self, folder: Path, rank: int, world_size: int, write: str) -> None:
        """Write this device's part of a checkpoint folder; rank 0 also writes everything else.

        Args:
            folder: An existing folder.
            rank: Rank of this process.
            world_size: Number of ranks.
            write: Name of this write, by which parts of different checkpoints are told apart.
        """
        stamp = {"global_step": self.step, "write": write}
        writer = AtomicCheckpointIO()
        writer.save_checkpoint({**self.parts, STAMP: stamp}, folder / PART.format(rank))
        if rank == 0:
            writer.save_checkpoint({**self.rest, "parts": world_size, STAMP: stamp}, folder / META)


def _parts(checkpoint: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield this device's parts of the divided tensors of a checkpoint, not copied, with their offsets and paths."""
    for name, leaf in _tensors(checkpoint):
        if isinstance(leaf, DTensor):
            yield name, {"start": [bounds.start for bounds in region_of(leaf)], "part": leaf.to_local().detach()}


def _rest(_: str, leaf: Any) -> Any:
    if isinstance(leaf, DTensor):
        return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta")
    return leaf.detach().to("cpu", copy=True) if isinstance(leaf, Tensor) else copy.deepcopy(leaf)


def _are_equal(parts: dict[str, dict[str, Any]], others: dict[str, dict[str, Any]]) -> bool:
    return parts.keys() == others.keys() and all(
        one["start"] == others[name]["start"] and torch.equal(one["part"].cpu(), others[name]["part"])
        for name, one in parts.items()
    )


def load_checkpoint_parts(path: str | Path, argument: str = "--ckpt_path") -> dict[str, Any]:
    """Read a checkpoint file or folder such that a device reads only the parts of the tensors that it needs.

    Args:
        path: The file, or the folder that several devices wrote.
        argument: Name of the argument that gave the path, for the message.

    Returns:
        The checkpoint; tensors are mapped from the file, or are each a `ScatteredTensor`.

    Raises:
        UserError: If there is no such checkpoint, or one of its files is missing or damaged.
    """
    path = Path(path)
    undo_torn_replacement(path)
    if not is_checkpoint_folder(path):
        return read_checkpoint_file(path, argument)
    meta = read_checkpoint_facts(path, argument)
    scattered: dict[str, list[tuple[tuple[int, ...], Tensor]]] = {}
    stamp = meta.pop(STAMP, None)
    for file in _part_files(path, meta.pop("parts", None), argument):
        try:
            parts = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            check_content(file, argument)
            if (other := parts.pop(STAMP, None)) != stamp:
                raise UserError(_mixed(path, file, stamp, other, argument))
            for name, part in parts.items():
                scattered.setdefault(name, []).append((tuple(part["start"]), part["part"]))
        except UserError:
            raise
        except Exception as error:  # whatever a damaged file makes torch raise, and other content
            raise UserError(
                f"{argument} is {path}, but its file {file.name} is missing or damaged; copy the whole folder again, "
                "or give another checkpoint."
            ) from error

    def find(name: str, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_meta:
            return leaf
        parts = scattered.get(name, [])
        if not _make_up(parts, leaf):
            raise UserError(
                f"{argument} is {path}, whose parts of {name} do not make up a tensor of the shape "
                f"{tuple(leaf.shape)}; copy the whole folder again, or give another checkpoint."
            )
        return ScatteredTensor(leaf, parts)

    return dict(_map(meta, find))


def _part_files(path: Path, count: Any, argument: str) -> list[Path]:
    """Return the files of the devices' parts, if the folder has as many as were written."""
    if type(count) is not int or not 0 <= count <= len(list(path.iterdir())):
        raise UserError(
            f"{argument} is {path}, which lacks some of its {count!r} parts, or was not written by several devices; "
            "copy the whole folder again, or give another checkpoint."
        )
    return [path / PART.format(rank) for rank in range(count)]


def _mixed(path: Path, file: Path, stamp: Any, other: Any, argument: str) -> str:
    """Return a sentence on a part that another write made, at another step or at the same one."""
    steps = [one.get("global_step") if isinstance(one, dict) else None for one in (other, stamp)]
    where = f"of step {steps[0]}, not {steps[1]}" if steps[0] != steps[1] else "of another checkpoint of its step"
    return (
        f"{argument} is {path}, whose {file.name} is {where}, so its parts do not belong together; copy the whole "
        "folder again, or give another checkpoint."
    )


def _make_up(parts: list[tuple[tuple[int, ...], Tensor]], like: Tensor) -> bool:
    """Tell whether parts, of which several devices may have the same, cover a tensor."""
    covered = {}
    for start, part in parts:
        if not isinstance(part, Tensor) or part.dtype != like.dtype or not len(start) == part.dim() == like.dim():
            return False
        bounds = zip(start, part.shape, like.shape, strict=True)
        inside = all(type(first) is int and 0 <= first <= first + n <= whole for first, n, whole in bounds)
        if not inside or part.numel() * part.element_size() > part.untyped_storage().nbytes():  # repeated, not stored
            return False
        covered[start, part.shape] = part.numel()
    return sum(covered.values()) == like.numel()


def consolidate(ckpt_path: str, output: str) -> None:
    """Convert a checkpoint folder that several devices wrote to one file, for one device, DDP, generate and export.

    Args:
        ckpt_path: The folder.
        output: The checkpoint file to write, tensor by tensor: no more than a part of one is in memory.

    Raises:
        UserError: If there is no such folder, one of its files is missing, or the output exists.
    """
    target = output_file(output)
    if not is_checkpoint_folder(Path(ckpt_path)):
        raise UserError(
            f"ckpt_path is {ckpt_path}, which is not a folder with the parts of a checkpoint; a checkpoint that is a "
            "file needs no consolidation."
        )
    checkpoint = load_checkpoint_parts(ckpt_path, "ckpt_path")
    former = checkpoint.get(record.KEY) or {}
    own = record.new_record(inputs=[])
    checkpoint[record.KEY] = {**own, **former, "sessions": [*former.get("sessions", []), *own["sessions"]]}
    with streamed_file(target, _empty(checkpoint)) as written:
        targets = dict(_tensors(written))
        for name, leaf in _tensors(checkpoint):
            if isinstance(leaf, ScatteredTensor):
                leaf.fill(targets[name])
            else:
                targets[name].copy_(leaf)
    say(f"Wrote {target}")


def _map(tree: Any, function: Callable[[str, Any], Any], path: str = "") -> Any:
    """Return a tree of mappings and lists with each leaf replaced by a function of its path and itself."""
    if isinstance(tree, Mapping):
        return {key: _map(value, function, f"{path}/{key}") for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_map(value, function, f"{path}/{index}") for index, value in enumerate(tree))
    return function(path, tree)
