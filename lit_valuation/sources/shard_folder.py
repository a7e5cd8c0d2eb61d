"""Labelled shard sets as a source of samples."""

from __future__ import annotations

from typing import Any

from lit_core.errors import UserError
from lit_core.files.listing import listed
from lit_core.files.paths import files_facts, resolve_data_path
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.data.vocabulary import stored_tokenizer
from lit_valuation.encoders import EncoderStamp
from lit_valuation.samples import Samples, merge_samples
from lit_valuation.sources.base import LabelledSource, name_of


class ShardFolder(LabelledSource):
    """Labelled shard sets: a folder that is such a set, or that contains such folders, which are merged.

    Args:
        folder: The folder: absolute, or relative to the working directory or the data root.
        name: Name of the source; None takes that of the folder.

    Raises:
        UserError: If there is no labelled shard set, or the sets differ in kind, shape or vocabulary of their inputs.
    """

    def __init__(self, folder: str, name: str | None = None) -> None:
        self.folder = resolve_data_path(folder)
        self.name = name_of(name, self.folder)
        folders = [index.parent for index in listed(self.folder, "**/index.json")]
        if not folders:
            raise UserError(
                f"folder of the source {self.name} is {folder}, but no labelled shard set is in it; correct the path."
            )
        self.sets = [LabelledSet(path) for path in folders]
        first = self.sets[0]
        for other in self.sets[1:]:
            if other.vocabulary != first.vocabulary:
                raise UserError(
                    f"{other.folder} has the vocabulary {other.vocabulary}, but {first.folder} has {first.vocabulary}; "
                    "prepare both with one tokenizer."
                )
            if (other.kind, other.shape) != (first.kind, first.shape):
                raise UserError(
                    f"{other.folder} holds inputs ({other.kind}) of shape {other.shape}, but {first.folder} "
                    f"({first.kind}) of shape {first.shape}; name a folder with sets of one kind and shape."
                )
            if other.encoder != first.encoder:
                raise UserError(
                    f"{other.folder} holds embeddings by {other.encoder or 'an unknown encoder'}, but {first.folder} "
                    f"by {first.encoder or 'an unknown encoder'}; name a folder with sets of one encoder."
                )
        self.input, self.vocabulary = first.kind, first.vocabulary
        stored = (stored_tokenizer(folder, self.vocabulary) for folder in (self.folder, self.folder.parent))
        self.tokenizer = next((tokenizer for tokenizer in stored if tokenizer is not None), None)
        self.columns = tuple(first.meta["columns"]) if "columns" in first.meta else None
        index = first.shards.index
        self.licence, self.origin = index["licence"], index["origin"]

    @property
    def made_by(self) -> EncoderStamp | None:
        """The encoder of embeddings, as the index tells it."""
        return self.sets[0].encoder

    def samples(self) -> Samples:
        """Return the samples of all sets, in the order of the sets' paths.

        Raises:
            UserError: If two samples have the same key.
        """
        return merge_samples([labelled.load() for labelled in self.sets])

    def facts(self) -> dict[str, Any]:
        """Return the names, sizes and modification times of the files."""
        return files_facts([file for labelled in self.sets for file in labelled.shards.files])
