"""Labelled samples from the Hugging Face hub, or from local files that `datasets` reads."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lit_core.errors import UserError, check_above, check_at_least
from lit_core.fetch.hub import load_rows, need_datasets
from lit_core.files.listing import listed
from lit_core.files.paths import files_facts
from lit_valuation.data.images import Ground
from lit_valuation.encoders import Encoder, embed
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LARGEST, LabelledSource, label_of, name_of
from lit_valuation.sources.image_folder import as_square, check_memory
from lit_valuation.sources.rows import cell_of
from lit_valuation.sources.targets import TargetColumns

#: How images become squares where nothing else is given.
_SQUARE: dict[str, Any] = {"channels": 3, "white": None, "ground": "white"}


class HuggingFaceSamples(LabelledSource):
    """A dataset of the Hugging Face hub, or local files of any kind that `datasets` reads. A row is a sample.

    Exactly one of image, columns and text names the inputs.

    Args:
        path: Name on the hub, the folder of a dataset that was saved by `save_to_disk`, or csv, json, parquet,
            imagefolder and so on together with data_files.
        name: Name of the source; None takes the last part of path.
        label: Column of the classes, or of lists of labels by name.
        labels: Columns of 0 and 1, one per label, in place of classes; None if there are none.
        values: Columns of numbers that are to be predicted, in place of classes; None if there are none.
        image: Column of images, which are scaled and cropped to squares.
        columns: Columns of numbers.
        text: Column of texts, which need an encoder.
        group: Column of the groups; None if there are no groups.
        size: Height and width of images in pixels, 1 or more.
        channels: 1 for grey images, 3 for colour.
        white: Value of a white pixel in images of more than 8 bits, above 0; None takes 65535 for 16 bits.
        ground: What is behind transparent pixels: white or black.
        encoder: Encoder that turns texts into embeddings, by class name.
        subset: Configuration of the dataset; None takes the only one.
        split: Split to read, which is split or divided.
        max_samples: Number of rows to read from the beginning, 1 or more; None reads all.
        revision: Commit or tag on the hub; None takes the newest.
        data_files: Local files or glob patterns, for the kinds that need them.
        licence: Licence of the data, for the record.

    Raises:
        UserError: If `datasets` is not installed, or the arguments do not fit together.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        label: str = "label",
        labels: list[str] | None = None,
        values: list[str] | None = None,
        image: str | None = None,
        columns: list[str] | None = None,
        text: str | None = None,
        group: str | None = None,
        size: int = 64,
        channels: Literal[1, 3] = 3,
        white: float | None = None,
        ground: Ground = "white",
        encoder: Encoder | None = None,
        subset: str | None = None,
        split: str = "train",
        max_samples: int | None = None,
        revision: str | None = None,
        data_files: list[str] | None = None,
        licence: str = "unknown",
    ) -> None:
        need_datasets("HuggingFaceSamples")
        name = name_of(name, Path(path))
        inputs = {"image": image, "columns": columns, "text": text}
        if sum(bool(given) for given in inputs.values()) != 1:
            raise UserError(f"The source {name} takes exactly one of image, columns and text; name the inputs.")
        if (text is None) != (encoder is None):
            raise UserError(f"The source {name} takes text and encoder together; give both or neither.")
        check_at_least(1, size=size, max_samples=max_samples)
        check_above(0, white=white)
        self.name, self.licence = name, licence
        self.origin = path if data_files is None else f"{path} files"
        self.input = "image" if image else "table" if columns else "embedding"
        self.columns = tuple(columns) if columns else None
        self.encoder = encoder
        self.targets = TargetColumns(label, labels, values)
        self.given: dict[str, Any] = {
            **inputs,
            "label": label,
            "group": group,
            "size": size,
            "max_samples": max_samples,
        }
        self.square: dict[str, Any] = {"channels": channels, "white": white, "ground": ground}
        self.hub: dict[str, Any] = {
            "path": path,
            "subset": subset,
            "split": split,
            "revision": revision,
            "data_files": data_files,
        }

    def samples(self) -> Samples:
        """Return the rows in order.

        Raises:
            UserError: If the dataset cannot be loaded, or a row lacks a column or has a value of another type in it.
        """
        limit = self.given["max_samples"]
        remedy = "correct path, subset or split, or use ImageFolder or Table for files you have"
        rows: Any = load_rows(f"The source {self.name}", remedy, streaming=limit is not None, **self.hub)
        features = getattr(rows, "features", None) or {}
        if type(features.get(self.given["image"])).__name__ == "Image":
            from datasets import Image

            rows = rows.cast_column(self.given["image"], Image(decode=False))  # so that a damaged one can be named
        group = self.given["group"]
        by_name = [*self.targets.columns, *([] if group is None else [group])]
        inputs: list[Any] = []
        targets, groups, places = [], [], []
        for number, row in enumerate(rows if limit is None else rows.take(limit)):
            where = f"{self.origin}, row {number}"
            places.append(f"row {number}")
            if self.given["image"]:
                check_memory(number + 1, self.given["size"], self.square["channels"])
            inputs.append(self._input(row, where))
            named = {
                column: _named(features.get(column), cell_of(row, column, where), where, column) for column in by_name
            }
            targets.append(self.targets.read(named, where))
            if group is not None:
                groups.append(label_of(named[group], f"{where}, column {group}"))
        if not inputs:
            raise UserError(f"The source {self.name} has no rows in {self.origin}; choose another split.")
        self.places = tuple(places)
        if self.encoder is not None:
            x = embed(self.encoder, inputs)
        else:
            x = torch.stack(inputs)
        return self.targets.samples(self.name, x, targets, groups or None)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the names, sizes and modification times of local files."""
        local = sorted(
            {Path(file) for pattern in self.hub["data_files"] or [] for file in glob(pattern, recursive=True)}
        )
        folder = Path(self.hub["path"])
        local += [file for file in listed(folder, "**/*") if file.is_file()] if folder.is_dir() else []
        encoder = {} if self.encoder is None else {"encoder": self.encoder.name, "encoder_sha256": self.encoder.sha256}
        changed = {key: value for key, value in self.square.items() if value != _SQUARE[key]}  # new in the records
        return {**self.given, **self.targets.facts(), **changed, **self.hub, **encoder, **files_facts(local)}

    def _input(self, row: dict[str, Any], where: str) -> Tensor | str:
        if self.given["image"]:
            image = cell_of(row, self.given["image"], where)
            if isinstance(image, dict) and {"bytes", "path"} <= {*image}:
                image = image["bytes"] or Path(image["path"])
            if not isinstance(image, bytes | Path) and not hasattr(image, "convert"):
                raise UserError(
                    f"{where}: {self.given['image']} is {type(image).__name__}, not an image; name another."
                )
            try:
                return as_square(image, self.given["size"], **self.square)
            except ValueError as error:
                raise UserError(f"{where}: the image cannot be decoded ({error}); leave it out.") from error
        if self.given["text"]:
            text = cell_of(row, self.given["text"], where)
            if not isinstance(text, str):
                raise UserError(f"{where}: {self.given['text']} is {type(text).__name__}, not a text; name another.")
            return text
        numbers = {column: cell_of(row, column, where) for column in self.columns or ()}
        for column, number in numbers.items():
            if not isinstance(number, (int, float)) or not abs(number) <= LARGEST:  # nor nan
                raise UserError(f"{where}, column {column}: {number!r} is not a finite float32; leave it out.")
        return torch.tensor(list(numbers.values()), dtype=torch.float32)


def _named(feature: Any, cell: Any, where: str, column: str) -> Any:
    """Return a cell with names in place of the integers for which the dataset defines them, also inside a list."""
    if isinstance(cell, list):
        inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        return [_named(inner, one, where, column) for one in cell]
    names = getattr(feature, "names", None)
    if not names or not isinstance(cell, int):
        return cell
    if not 0 <= cell < len(names):  # -1 stands for no label
        raise UserError(f"{where}, column {column}: {cell} is none of the {len(names)} classes; leave the row out.")
    return str(names[cell])
