"""Checkpoint files, written atomically and read without executing code from them."""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import dropwhile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.serialization import set_default_mmap_options, skip_data

from lit_core.errors import UserError, reason_of
from lit_core.files.formats import META, check_format, is_checkpoint_folder
from lit_core.files.json_files import DEEPEST, is_shallow
from lit_core.files.paths import atomic_path, undo_torn_replacement
from lit_core.lightning.checksums import check_content, renew_checksums
from lit_core.lightning.foreign import vetted
from lit_core.moved_names import current_paths
from lit_core.record import note_input
from lit_core.references import value_at
from lit_core.screen import rank_zero_warn
from lit_core.trust import DESCRIBING


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary name in its own folder, syncs it and renames it.

    Lightning's writer uses the system's temporary folder. If that is on another file system, its rename copies over the
    former checkpoint, and a kill during the copy loses both.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: The checkpoint.
            path: The file.
            storage_options: Not supported.

        Raises:
            RunFailure: If the disk is full; the former file is untouched.
        """
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO takes no storage_options.")
        with atomic_path(Path(path)) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # torch's zip writer hides the errno of a failed write
                if not _is_full(error, temporary):
                    raise
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary)) from error

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        """Read a checkpoint file.

        Args:
            path: The file.
            args: Those of Lightning's class.
            options: Those of Lightning's class.

        Returns:
            The checkpoint.

        Raises:
            UserError: If the path is a checkpoint folder that several devices wrote.
        """
        refuse_folder(path, "--ckpt_path")
        checkpoint = super().load_checkpoint(path, *args, **options)
        check_written(checkpoint, path, "--ckpt_path")
        check_version(checkpoint, path)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, and nothing else: a callback takes the path from the checkpoint that a run resumed from.

        Args:
            path: The file, or the folder that several devices wrote; anything else, or a path with ``..`` within,
                stays and is named.
        """
        target = Path(path)
        below = list(dropwhile("..".__eq__, target.parts))  # folders that the user typed may begin with it
        if ".." in below or target.suffix != ".ckpt":
            rank_zero_warn(f"{path} is no checkpoint of this run, and is not removed.")
        elif is_checkpoint_folder(target) and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def check_version(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint of a newer version than ours, or with a description that no command writes.

    Checkpoints of Lightning have no version.

    Args:
        checkpoint: Its content.
        path: The file, for the message.

    Raises:
        UserError: If this release does not read the version, or the description is too deep to be read.
    """
    if isinstance(checkpoint, dict):
        check_format("litshift-checkpoint", checkpoint, path, "give another checkpoint")
        if not all(is_shallow(checkpoint.get(key)) for key in DESCRIBING):
            raise UserError(f"{path} describes a model on more than {DEEPEST} levels; give another checkpoint.")


def refuse_folder(path: str | Path, argument: str) -> None:
    """Refuse a checkpoint folder where a checkpoint file is needed.

    Args:
        path: Path of the checkpoint.
        argument: Name of the argument that gave the path, for the message.

    Raises:
        UserError: If the path is a checkpoint folder, which several devices wrote in parts.
    """
    undo_torn_replacement(Path(path))
    if is_checkpoint_folder(Path(path)):
        raise UserError(
            f"{argument} is {path}, a checkpoint folder, which only a sharded strategy reads; convert it to a file "
            "with the command `consolidate`, or set `trainer.strategy` as it was in training."
        )


@contextmanager
def streamed_checkpoint(path: str | Path, checkpoint: dict[str, Any]) -> Iterator[dict[str, Tensor]]:
    """Write a checkpoint whose weights are filled in on the disk, so that they are never all in memory.

    The file appears under its name only if the block succeeds. torch reads it like any other checkpoint.

    Args:
        path: The file.
        checkpoint: The checkpoint; only shape and dtype of the tensors in its ``state_dict`` are used, so they may be
            on the meta device.

    Yields:
        The tensors of ``state_dict``, to be filled in place.

    Raises:
        RunFailure: If the disk is full.
    """
    # The system provides no memory for pages that are never touched.
    empty = {name: torch.empty_like(tensor, device="cpu") for name, tensor in checkpoint["state_dict"].items()}
    with streamed_file(path, {**checkpoint, "state_dict": empty}) as written:
        yield written["state_dict"]


@contextmanager
def streamed_file(path: str | Path, content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Write a checkpoint of which the values of no tensor are written, but filled in on the disk.

    Args:
        path: The file, which appears under its name only if the block succeeds.
        content: The checkpoint; only shape and dtype of its tensors, which are on the CPU, are used.

    Yields:
        The checkpoint as it is on the disk; all its tensors are to be filled in place.

    Raises:
        RunFailure: If the disk is full.
    """
    with atomic_path(Path(path)) as temporary:
        with skip_data():
            torch.save(content, temporary)
        if hasattr(os, "posix_fallocate"):  # a disk that is full later would kill the process, not raise an error
            with temporary.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        with set_default_mmap_options(mmap.MAP_SHARED):
            yield torch.load(temporary, mmap=True, weights_only=True)
        renew_checksums(temporary)


def load_checkpoint_file(
    path: str | Path, argument: str = "--ckpt_path", known: Collection[type] = ()
) -> dict[str, Any]:
    """Read a checkpoint file without executing code from it.

    Args:
        path: The file; tensors are mapped into memory, not copied.
        argument: Name of the argument that gave the path, for the message.
        known: Classes that the caller has imported for this checkpoint.

    Returns:
        The checkpoint; of what it says about how to build it, only that which may count, see
        `lit_core.lightning.foreign`. Former import paths are replaced by the present ones.

    Raises:
        UserError: If the file does not exist or is not a checkpoint, or it names a class that must be trusted first.
    """
    return vetted(read_checkpoint_file(path, argument), path, argument, known)


def read_checkpoint_file(path: str | Path, argument: str = "--ckpt_path") -> dict[str, Any]:
    """Read a checkpoint file from which nothing is to be built; see `load_checkpoint_file`."""
    path = Path(path)
    refuse_folder(path, argument)
    if not path.is_file():
        raise UserError(f"{argument} is {path}, but there is no such file; give the path of a .ckpt file.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a damaged or foreign file makes torch raise
        check_content(path, argument)
        raise UserError(
            f"{argument} is {path}, which cannot be read as a checkpoint ({_reason(path, error)}); give another."
        ) from error
    check_written(checkpoint, path, argument)
    check_version(checkpoint, path)
    parts = {"state_dict": dict, "global_step": int, "config": dict, "hyper_parameters": dict, "callbacks": dict}
    optional: dict[str, Any] = {"config": {}, "hyper_parameters": {}, "callbacks": {}}
    whole = isinstance(checkpoint, dict) and all(
        isinstance(checkpoint.get(key, optional.get(key)), kind) for key, kind in parts.items()
    )
    if not whole:
        raise UserError(f"{argument} is {path}, which is not a Lightning checkpoint; give a .ckpt file of a run.")
    note_input(path.parent if path.name == META else path, step=checkpoint["global_step"])
    return {key: current_paths(value) if key in DESCRIBING else value for key, value in checkpoint.items()}


def checkpoint_facts(path: str | Path, argument: str = "--ckpt_path") -> dict[str, Any]:
    """Read a checkpoint file or folder from which something is to be built; the divided tensors are not read.

    Args:
        path: The file, or the folder that several devices wrote.
        argument: Name of the argument that gave the path, for the message.

    Returns:
        The checkpoint, as `load_checkpoint_file` returns it; the divided tensors of a folder are on the meta device.

    Raises:
        UserError: If the checkpoint does not exist, or names a class that must be trusted first.
    """
    return vetted(read_checkpoint_facts(path, argument), path, argument)


def read_checkpoint_facts(path: str | Path, argument: str = "--ckpt_path") -> dict[str, Any]:
    """Read a checkpoint file or folder from which nothing is to be built; see `checkpoint_facts`."""
    path = Path(path)
    undo_torn_replacement(path)
    return read_checkpoint_file(path / META if is_checkpoint_folder(path) else path, argument)


def data_argument(checkpoint: Mapping[str, Any], name: str) -> Any:
    """Return an argument of the data module that a checkpoint was trained with; None if it is not known.

    Args:
        checkpoint: The checkpoint's content.
        name: Name of the argument.
    """
    config = checkpoint.get("config", {})
    if config.get("data"):
        return value_at(config, f"data.init_args.{name}")
    return value_at(checkpoint.get("datamodule_hyper_parameters", {}), name)


def check_weights(module: nn.Module, state: dict[str, Any], path: str | Path, argument: str) -> None:
    """Check that weights have the names and shapes of a module's weights.

    Args:
        module: The module that is to receive them.
        state: Tensors by parameter name.
        path: File they come from, for the message.
        argument: Name of the argument that gave the path, for the message.

    Raises:
        UserError: If a name or a shape differs.
    """
    own = module.state_dict()
    for name in [*own, *state]:
        if name not in state or name not in own:
            difference = f"{name} is missing from it" if name not in state else f"its {name} is not in the model"
        elif own[name].shape != state[name].shape:
            shape = tuple(state[name].shape)
            difference = f"its {name} has the shape {shape}, the model's has {tuple(own[name].shape)}"
        else:
            continue
        raise UserError(
            f"{argument} is {path}, a checkpoint of another architecture: {difference}; give the model the "
            "checkpoint's own config."
        )


def check_written(checkpoint: Any, path: str | Path, argument: str) -> None:
    """Compare a checkpoint file with its checksums, if it has its own.

    Args:
        checkpoint: Its content; `streamed_checkpoint` wrote none up to version 1 of the format.
        path: The file.
        argument: Name of the argument that gave the path, for the message.

    Raises:
        UserError: If the file is not what was written.
    """
    streamed = isinstance(checkpoint, dict) and bool({"companions", "upcycled"} & checkpoint.keys())
    if not (streamed and checkpoint.get("version") in (None, 1)):
        check_content(path, argument)


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = found[1] if found else "more than tensors and plain values"
        return f"it holds {what}, and code in a checkpoint is not executed"
    if not zipfile.is_zipfile(path):  # of a damaged one, `check_content` has told before
        return "it is truncated or was not written by torch.save"
    return reason_of(error)


def _is_full(error: RuntimeError, path: Path) -> bool:
    """Tell whether a write failed for lack of disk space; torch's message names only its writer, not the cause."""
    by_writer = any(name in str(error) for name in ("PytorchStreamWriter", "inline_container"))
    return by_writer or shutil.disk_usage(path.parent).free < 1 << 20
