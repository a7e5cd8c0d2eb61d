"""Datasets of the Hugging Face hub, or local files that `datasets` reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError, reason_of
from lit_core.files.parquet_files import class_names
from lit_core.screen import say

#: Names of the arguments of `load_rows` that describe the dataset.
HUB_ARGUMENTS = ("path", "subset", "split", "streaming", "revision", "data_files")

#: Files of a folder to which `datasets` saved a dataset, or one by splits.
_SAVED = ("state.json", "dataset_dict.json")
#: Begins the name of a dataset where files could be named as well.
HUB = "hf:"
_NAME = re.compile(r"hf:(?P<path>[^:@]+)(@(?P<revision>[^:]+))?((:(?P<subset>[^:]+))?:(?P<split>[^:]+))?")
#: Kinds of columns whose values are not texts and numbers, but are decoded from files of others.
_MEDIA = ("Audio", "Image", "Nifti", "Pdf", "Video")


def need_datasets(what: str) -> None:
    """Raise a UserError that names the user of `datasets`, `what`, if that library is not installed."""
    if not RequirementCache("datasets>=3.0"):
        raise UserError(f'{what} needs `datasets`; install it with `pip install "lit-shift[hf]"`.')


def load_rows(
    name: str,
    remedy: str,
    path: str,
    subset: str | None,
    split: str | None,
    streaming: bool,
    revision: str | None,
    data_files: list[str] | None,
) -> Iterable[dict[str, Any]]:
    """Load the rows of a dataset.

    Args:
        name: Name of the source made of it, for the message.
        remedy: End of the message, which says what the user can do.
        path: Name on the hub, the folder of a saved dataset, or csv, json, parquet and so on together with data_files.
        subset: Configuration of the dataset; None takes the only one.
        split: Split to read; None loads all, by name.
        streaming: Whether rows are read from the hub when they are needed.
        revision: Commit or tag on the hub; None takes the newest.
        data_files: Local files or patterns for the kinds that need them.

    Returns:
        The rows, dicts by column.

    Raises:
        UserError: If the dataset cannot be loaded.
    """
    from datasets import load_dataset, load_from_disk

    try:
        if any((Path(path) / file).is_file() for file in _SAVED):
            saved: Any = load_from_disk(path)
            splits: Any = saved if isinstance(saved, dict) else {split or "train": saved}
            if split is None:
                return splits
            if split not in splits:
                raise UserError(f"{name} has the splits {', '.join(splits)}, not {split}; name one.")
            return splits[split].to_iterable_dataset() if streaming else splits[split]
        return load_dataset(path, subset, split=split, streaming=streaming, revision=revision, data_files=data_files)
    except UserError:
        raise
    except Exception as error:  # whatever the dataset's reader or the network raises
        reason = reason_of(error)
        where = " ".join([path, *([subset] if subset else []), *(data_files or []), *([split] if split else [])])
        raise UserError(
            f"{name} could not be loaded from {where} ({type(error).__name__}: {reason}); {remedy}."
        ) from error


@cache
def _announce(name: str) -> None:
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    rank_zero_only(say)(f"{name}: what is not in the cache of `datasets` is fetched from the Hugging Face hub.")


class HubRows:
    """The rows of a dataset as plain values by column, read from the disk when they are asked for.

    Names of classes stand in place of their numbers. Pictures, sounds and the like are left out.

    Args:
        name: ``hf:NAME``, ``hf:NAME:SPLIT`` or ``hf:NAME:SUBSET:SPLIT``, where NAME is a dataset on the Hugging Face
            hub, perhaps with ``@REVISION``, or a local folder. The split can be left out if there is one.

    Raises:
        UserError: If `datasets` is not installed, the name has another form, the dataset cannot be loaded, or the
            split is missing where there are several.
    """

    def __init__(self, name: str) -> None:
        need_datasets(name)
        given = _NAME.fullmatch(name)
        if given is None:
            raise UserError(f"{name} must be hf:NAME, hf:NAME:SPLIT or hf:NAME:SUBSET:SPLIT; correct it.")
        self.name = name
        folder = Path(given["path"]).expanduser()
        if not folder.is_dir():
            _announce(name)
        remedy = "correct name, subset or split; without a network, give a file that you have"
        hub = {key: given[key] for key in ("subset", "split", "revision")}
        path = str(folder) if folder.is_dir() else given["path"]
        found: Any = load_rows(name, remedy, path, **hub, streaming=False, data_files=None)
        if given["split"] is None:
            if len(found) != 1:
                raise UserError(
                    f"{name} has the splits {', '.join(found)}; give one, as in {name}:{next(iter(found))}."
                )
            (found,) = found.values()
        features = found.features
        media = [column for column, kind in features.items() if any(f"{one}(" in repr(kind) for one in _MEDIA)]
        self._rows = found.remove_columns(media)
        self._classes = {
            column: class_names(kind.names) for column, kind in features.items() if type(kind).__name__ == "ClassLabel"
        }
        #: Files of the cache in which the rows lie.
        self.files = [Path(file["filename"]) for file in found.cache_files]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._named, self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._named(self._rows[index])

    def _named(self, row: dict[str, Any]) -> dict[str, Any]:
        return row | {column: names.get(row[column]) for column, names in self._classes.items()}
