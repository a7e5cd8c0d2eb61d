"""Which checkpoints are the user's own, and which classes those of others may name.

Configuration that travels in a file is not the user's own: see `lit_core.lightning.foreign` for what of it counts. The
signature in a checkpoint tells which the user's commands wrote. It is made with a key that lies, outside all runs, in
``$XDG_CONFIG_HOME/litshift`` (``~/.config/litshift``), with the list of classes which the user has typed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lit_core.files.paths import make_folder
from lit_core.files.temporary import remove_left, temporary

#: Key of a checkpoint under which its signature lies.
SIGNATURE = "signature"
#: Keys of a checkpoint that say how to build what it holds.
DESCRIBING = ("config", "hyper_parameters", "datamodule_hyper_parameters")

#: Our packages, and all those whose classes a file of others may name.
OWN = ("lit_core.", "lit_moe.", "lit_valuation.", "lit_detect.")
KNOWN = ("torch.optim.", "torch.nn.", "lightning.", "torchmetrics.", *OWN)

_trusted: set[str] = set()


def trust(*class_paths: str) -> None:
    """Let checkpoints of others name these classes, in this process.

    Args:
        class_paths: Import paths, such as ``my_project.MyRouter``.
    """
    _trusted.update(class_paths)


def is_trusted(class_path: str) -> bool:
    """Tell whether a checkpoint of others may name a class: one that is trusted, or that the user has typed."""
    return class_path in _trusted or class_path in _noted()


def sign(checkpoint: dict[str, Any]) -> None:
    """Add the signature by which this user's commands recognise a checkpoint as their own.

    Args:
        checkpoint: The checkpoint, to be written; without a place for the user's key it stays unsigned.
    """
    key = _key(create=True)
    if key is not None:
        checkpoint[SIGNATURE] = _signature(checkpoint, key)


def is_own(checkpoint: Mapping[str, Any]) -> bool:
    """Tell whether this user's commands wrote the description in a checkpoint."""
    given, key = checkpoint.get(SIGNATURE), _key()
    return key is not None and isinstance(given, str) and hmac.compare_digest(given, _signature(checkpoint, key))


def note_typed(config: Any) -> None:
    """Note the classes in a config that the user has typed, which checkpoints of others may then name.

    Args:
        config: The config, as plain values.
    """
    named = {value for key, value in _entries(config) if key == "class_path" and isinstance(value, str)}
    new = sorted(name for name in named - _noted() if "." in name and not name.startswith(KNOWN))
    if new:
        with suppress(OSError, RuntimeError):  # there is no home, or it cannot be written
            make_folder(_folder())
            with (_folder() / "classes.txt").open("a", encoding="utf-8") as file:
                file.writelines(f"{name}\n" for name in new)


def _entries(config: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield key, value
            yield from _entries(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _entries(value)


def _folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "litshift"


def _noted() -> set[str]:
    """Return the classes that the user has typed."""
    try:
        return set((_folder() / "classes.txt").read_text(encoding="utf-8").split())
    except (OSError, RuntimeError, UnicodeDecodeError):  # there is none, or no home
        return set()


def _key(create: bool = False) -> bytes | None:
    """Return the user's key; None if there is none, or no place for one."""
    with suppress(OSError, RuntimeError):
        path = _folder() / "key"
        if create:
            remove_left(path.parent)  # of a process that was killed as it wrote the key
        if create and not path.exists():
            make_folder(path.parent)
            with temporary(path) as own:  # which nobody else can read
                own.write_bytes(secrets.token_bytes(32))
                with suppress(FileExistsError):  # another process was faster
                    os.link(own, path)
        return path.read_bytes() or None
    return None


def _signature(checkpoint: Mapping[str, Any], key: bytes) -> str:
    described = json.dumps([_canonical(checkpoint.get(name)) for name in DESCRIBING])
    return hmac.new(key, described.encode(), hashlib.sha256).hexdigest()


def _canonical(value: Any) -> Any:
    """Return plain values in the one form that is signed."""
    if isinstance(value, Mapping):
        return {"mapping": sorted([str(key), _canonical(inner)] for key, inner in value.items())}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    return value if value is None or isinstance(value, str | bool | int | float) else repr(value)
