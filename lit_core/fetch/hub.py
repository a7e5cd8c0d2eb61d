"""Datasets of the Hugging Face hub, or local files that `datasets` reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError

#: Names of the arguments of `load_rows` that describe the dataset.
HUB_ARGUMENTS = ("path", "subset", "split", "streaming", "revision", "data_files")


def need_datasets(what: str) -> None:
    """Raise a UserError that names the user of `datasets`, `what`, if that library is not installed."""
    if not RequirementCache("datasets>=3.0"):
        raise UserError(f'{what} needs `datasets`; install it with `pip install "lit-shift[hf]"`.')


def load_rows(
    name: str,
    remedy: str,
    path: str,
    subset: str | None,
    split: str,
    streaming: bool,
    revision: str | None,
    data_files: list[str] | None,
) -> Iterable[dict[str, Any]]:
    """Load the rows of a dataset.

    Args:
        name: Name of the source made of it, for the message.
        remedy: End of the message, which says what the user can do.
        path: Name on the hub, or csv, json, parquet and so on together with data_files.
        subset: Configuration of the dataset; None takes the only one.
        split: Split to read.
        streaming: Whether rows are read from the hub when they are needed.
        revision: Commit or tag on the hub; None takes the newest.
        data_files: Local files or patterns for the kinds that need them.

    Returns:
        The rows, dicts by column.

    Raises:
        UserError: If the dataset cannot be loaded.
    """
    from datasets import load_dataset

    try:
        return load_dataset(path, subset, split=split, streaming=streaming, revision=revision, data_files=data_files)
    except Exception as error:  # whatever the dataset's reader or the network raises
        reason = " ".join(str(error).split())[:200]
        where = " ".join([path, *([subset] if subset else []), *(data_files or []), split])
        raise UserError(
            f"{name} could not be loaded from {where} ({type(error).__name__}: {reason}); {remedy}."
        ) from error
