"""Checkpoint files: written whole or not at all, read without running code from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lit_core.errors import UserError
from lit_core.paths import atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary name in its own folder, syncs it and renames it.

    Lightning's writer puts the temporary file into the system's temporary folder; where that is another file system,
    the rename is a copy over the former checkpoint, and a kill leaves neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: What to write.
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
                raise _as_os_error(error, temporary) from error


def load_checkpoint_file(path: str | Path, argument: str = "--ckpt_path") -> dict[str, Any]:
    """Read a checkpoint's plain values and tensors; nothing in it is executed.

    Args:
        path: The file; tensors are mapped from it, not copied.
        argument: Name of the argument that gave the path, for the message.

    Raises:
        UserError: If there is no such file or it is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{argument} is {path}, but there is no such file; give the path of a .ckpt file.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{argument} is {path}, which cannot be read as a checkpoint ({reason}); give another."
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{argument} is {path}, which holds no Lightning checkpoint; give a .ckpt file of a run.")
    return checkpoint


def _as_os_error(error: RuntimeError, path: Path) -> Exception:
    """Find out whether a failed write was a full disk."""
    import errno
    import os
    import shutil

    full = shutil.disk_usage(path.parent).free < 1 << 20 or "PytorchStreamWriter" in str(error)
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) if full else error
