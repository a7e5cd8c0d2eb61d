"""Checkpoint files, written atomically and read without executing code from them."""

from __future__ import annotations

import errno
import hashlib
import inspect
import io
import mmap
import os
import pickle
import pydoc
import re
import shutil
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import torch
from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.serialization import set_default_mmap_options, skip_data

from lit_core.errors import UserError, did_you_mean
from lit_core.files.formats import check_format, stamp
from lit_core.files.paths import atomic_path, undo_torn_replacement
from lit_core.lightning.checksums import check_content, renew_checksums
from lit_core.lightning.foreign import vetted
from lit_core.lightning.hyperparameters import KeepsHyperparameters, usable_hyperparameters
from lit_core.lightning.internals import CLASS_PATH, as_built_by_cli, trainer_of
from lit_core.lightning.python_record import PythonRecord
from lit_core.moved_names import current_paths
from lit_core.origin import described
from lit_core.record import KEY, note_input
from lit_core.references import resolved, value_at
from lit_core.trust import DESCRIBING, is_own, sign

#: Name of the file in a checkpoint folder that holds everything except the divided tensors.
META = "meta.pt"
#: Arguments of Lightning's ``load_from_checkpoint`` itself; others are those of the module.
_OF_LOADING = inspect.signature(LightningModule.load_from_checkpoint).parameters.keys()


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
        _check_content(checkpoint, path, "--ckpt_path")
        check_version(checkpoint, path)
        return checkpoint


class CheckpointModule(KeepsHyperparameters, LightningModule):
    """A LightningModule whose checkpoints say as plain data how it was built, and that is built again from them.

    Former import paths in a checkpoint are replaced by the present ones.
    Hyperparameters that refer to environment variables take their present values.
    """

    def __init__(self) -> None:
        super().__init__()
        self._record = PythonRecord()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add version, record and signature, and describe what a data module of the user saved of its arguments.

        Under our command line the record is that of the command.
        """
        checkpoint.update(stamp("litshift-checkpoint"))
        data = LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY
        if data in checkpoint:
            checkpoint[data] = {
                name: value if _is_readable(value) else described(value) for name, value in checkpoint[data].items()
            }
        trainer = trainer_of(self)
        if trainer is not None and trainer.is_global_zero and KEY not in checkpoint:
            checkpoint[KEY] = self._record.of(trainer, self, checkpoint)
        sign(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the history of the checkpoint."""
        self._record.note_resumed(checkpoint)

    def on_fit_start(self) -> None:
        """Begin the record of a training."""
        self._record.begin()

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        """Rebuild a module from its checkpoint.

        Args:
            checkpoint_path: The file.
            args: Those of Lightning's method.
            options: Those of Lightning's method, and arguments of the module that replace the checkpoint's.

        Returns:
            The module, with the checkpoint's weights; of the class that was saved if it is derived from this one.

        Raises:
            UserError: If the checkpoint does not say how to build an argument, and none is given instead, or if the
                class has no such argument.
        """
        checkpoint = content_to_build(cls, checkpoint_path, options)
        if isinstance(checkpoint_path, str | Path):
            note_input(checkpoint_path, step=checkpoint.get("global_step"))
        saved = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_KEY) or {}
        kept = current_paths(dict(saved))
        usable = usable_hyperparameters(resolved(kept), checkpoint_path, "checkpoint_path", options)
        kind = pydoc.locate(str(kept.get(CLASS_PATH)))
        if not isinstance(kind, type) or not issubclass(kind, cls):
            if kept.get(CLASS_PATH):
                raise UserError(
                    f"checkpoint_path is {checkpoint_path}, which holds a {kept[CLASS_PATH]}, and that is no "
                    f"{cls.__name__}{' that can be imported' if kind is None else ''}; load it by its own class."
                )
            kind = cls
        given = {key: described(value) for key, value in options.items() if key not in _OF_LOADING}
        if kept:
            _check_arguments(kind, checkpoint_path, usable, given)
        options = {key: value for key, value in usable.items() if value != saved[key]} | options
        # the parser makes objects of the arguments that can't be described again
        with as_built_by_cli(kept | given) if kept else nullcontext():
            try:
                made: Any = super(CheckpointModule, kind).load_from_checkpoint(checkpoint_path, *args, **options)
            except ArgumentError as error:
                reason = " ".join(str(error).replace("module.", "").split())[:200].rstrip(".")
                raise UserError(
                    f"checkpoint_path is {checkpoint_path}, whose arguments build no {kind.__name__} ({reason}); give "
                    "what is wrong or lacks, as in load_from_checkpoint(path, NAME=...)."
                ) from error
        if isinstance(checkpoint_path, str | Path):
            made._record.note_loaded(checkpoint_path, checkpoint)
        return made


def _check_arguments(kind: type, path: Any, kept: Collection[str], given: Collection[str]) -> None:
    """Refuse what a class does not take, which Lightning leaves out, and what it lacks, which is None to the parser."""
    taken = inspect.signature(kind).parameters
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    handed_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    for name in given:
        if name not in taken and not handed_on:
            raise UserError(f"{name} is not an argument of {kind.__name__}.{did_you_mean(name, taken)}")
    for name, parameter in taken.items():
        needed = parameter.default is parameter.empty and parameter.kind not in several
        if needed and name not in kept and name not in given:
            raise UserError(
                f"checkpoint_path is {path}, which does not hold `{name}`, an argument of {kind.__name__}; give it by "
                f"load_from_checkpoint(path, {name}=...)."
            )


def content_to_build(kind: Any, source: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint from which ``load_from_checkpoint`` is about to build a class.

    Args:
        kind: The class.
        source: The file, an address, or an open file, whose position stays.
        options: Arguments of the class that replace the checkpoint's, and ``weights_only``.

    Raises:
        UserError: If the checkpoint names a class that must be trusted first.
    """
    checkpoint = _content(source, options.get("weights_only"))
    check_version(checkpoint, source)
    if not is_own(checkpoint):
        key = kind.CHECKPOINT_HYPER_PARAMS_KEY
        parameters = current_paths(dict(checkpoint.get(key) or {}))
        used = {name: value for name, value in parameters.items() if name not in options}
        vetted({key: used}, source, "checkpoint_path", [kind])
    return checkpoint


def check_version(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuse a checkpoint of a newer version than ours; those of Lightning have no version.

    Args:
        checkpoint: Its content.
        path: The file, for the message.

    Raises:
        UserError: If this release does not read the version.
    """
    if isinstance(checkpoint, dict):
        check_format("litshift-checkpoint", checkpoint, path, "give another checkpoint")


def is_checkpoint_folder(path: Path) -> bool:
    """Tell whether a path is a checkpoint folder, which several devices wrote in parts."""
    return (path / META).is_file()


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
    with atomic_path(Path(path)) as temporary:
        with skip_data():
            torch.save({**checkpoint, "state_dict": empty}, temporary)
        if hasattr(os, "posix_fallocate"):  # a disk that is full later would kill the process, not raise an error
            with temporary.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        with set_default_mmap_options(mmap.MAP_SHARED):
            yield torch.load(temporary, mmap=True, weights_only=True)["state_dict"]
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
    _check_content(checkpoint, path, argument)
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


def weights_sha256(module: nn.Module) -> str:
    """Return the SHA-256, in hexadecimal digits, of a network's weights: names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _is_readable(value: Any) -> bool:
    """Tell whether a value in a checkpoint is read without executing code from it."""
    try:
        torch.save(value, file := io.BytesIO())
        torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    except Exception:  # whatever a foreign object raises when it is pickled
        return False
    return True


def _content(source: Any, weights_only: bool | None) -> dict[str, Any]:
    """Return the content of a checkpoint file, of an address or of an open file, whose position stays."""
    if hasattr(source, "read"):
        position = source.tell()
        content = torch.load(source, map_location="cpu", weights_only=weights_only)
        source.seek(position)
    elif "://" in str(source):
        with fsspec.open(str(source), "rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=weights_only)
    else:
        mapped = zipfile.is_zipfile(source)
        content = torch.load(source, map_location="cpu", weights_only=weights_only, mmap=mapped)
        _check_content(content, source, "checkpoint_path")
    return dict(content)


def _check_content(checkpoint: Any, path: str | Path, argument: str) -> None:
    """Compare a checkpoint file with its checksums, except those that `streamed_checkpoint` did not write up to 1."""
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
    return " ".join(str(error).split())[:200].rstrip(".")


def _is_full(error: RuntimeError, path: Path) -> bool:
    """Tell whether a write failed for lack of disk space; torch's message names only its writer, not the cause."""
    by_writer = any(name in str(error) for name in ("PytorchStreamWriter", "inline_container"))
    return by_writer or shutil.disk_usage(path.parent).free < 1 << 20
