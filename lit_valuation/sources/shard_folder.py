"""Labelled shard sets as a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.files.paths import files_facts, resolve_data_path
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.samples import Samples, merge_samples
from lit_valuation.sources.base import LabelledSource, check_name


class ShardFolder(LabelledSource):
    """Labelled shard sets: a folder that is one, or one with such folders inside; all are taken together.

    Args:
        folder: The folder, absolute, from the working directory, or below the data root.
        name: Name of the source.

    Raises:
        UserError: If there is no labelled shard set.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.folder = resolve_data_path(folder)
        self.name = check_name(name)
        found = sorted(Path(index).parent for index in self.folder.rglob("index.json"))
        if not found:
            raise UserError(
                f"folder of the source {name} is {folder}, but there is no labelled shard set in it; correct the path."
            )
        self.sets = [LabelledSet(path) for path in found]
        first = self.sets[0]
        for other in self.sets[1:]:
            if (other.kind, other.shape) != (first.kind, first.shape):
                raise UserError(
                    f"{other.folder} holds inputs ({other.kind}) of shape {other.shape}, but {first.folder} "
                    f"({first.kind}) of shape {first.shape}; name a folder with sets of one kind."
                )
        self.input = first.kind
        self.columns = tuple(first.meta["columns"]) if "columns" in first.meta else None
        index = first.shards.index
        self.licence, self.origin = index["licence"], index["origin"]

    def samples(self) -> Samples:
        """Return the samples of all sets in the order of their names.

        Raises:
            UserError: If a shard is not what its index says, or two sets have samples of one name.
        """
        for labelled in self.sets:
            labelled.verify()
        return merge_samples([labelled.load() for labelled in self.sets])

    def facts(self) -> dict[str, Any]:
        """Return names, sizes and times of the files."""
        return files_facts([file for labelled in self.sets for file in labelled.shards.files])
