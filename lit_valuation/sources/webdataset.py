"""Labelled samples in webdataset shards that others wrote."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError, check_above, check_at_least
from lit_core.files.arrays import parse_npy
from lit_core.files.json_files import parse_json
from lit_core.files.listing import listed
from lit_core.files.paths import files_facts
from lit_valuation.data.images import Ground, pillow_image
from lit_valuation.encoders import Encoder, embed
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LARGEST, LabelledSource, name_of, refuse_faults
from lit_valuation.sources.image_folder import as_square, check_memory
from lit_valuation.sources.targets import TargetColumns

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm")
#: Largest member that is read, in bytes.
_LARGEST = 1 << 28
#: Ending of members whose targets have keys.
_JSON = "json"


class WebDataset(LabelledSource):
    """Webdataset shards: tar files in which the members of a sample share their name up to its first dot.

    A sample has one member of inputs, which is an image, an array (``npy``) or a text (``txt``), and one with its
    target, which is a text (``cls``) or in an object (``json``).

    Args:
        path: A .tar file, or a folder of them.
        name: Name of the source; None takes that of the file or folder.
        inputs: Ending of the members with inputs, such as jpg; None takes images.
        label: Ending of the members with targets.
        field: Key of the class, or of a list of labels, in a member that is JSON; None takes the member's text.
        labels: Keys of 0 and 1 in a member that is JSON, one per label, in place of classes; None if there are none.
        values: Keys of numbers that are to be predicted in a member that is JSON, in place of classes, or one name for
            the number that is the text of another member; None if there are none.
        size: Height and width of images in pixels, to which they are scaled and cropped, 1 or more.
        channels: 1 for grey, 3 for colour.
        white: Value of a white pixel in images of more than 8 bits, above 0; None takes 65535 for 16 bits.
        ground: What is behind transparent pixels: white or black.
        encoder: Encoder that turns texts into embeddings, by class name.
        licence: Licence of the data, for the record.

    Raises:
        UserError: If there is no shard, or arguments do not fit together.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        inputs: str | None = None,
        label: str = "cls",
        field: str | None = None,
        labels: list[str] | None = None,
        values: list[str] | None = None,
        size: int = 64,
        channels: Literal[1, 3] = 3,
        white: float | None = None,
        ground: Ground = "white",
        encoder: Encoder | None = None,
        licence: str = "unknown",
    ) -> None:
        check_at_least(1, size=size)
        check_above(0, white=white)
        found = Path(path).expanduser()
        self.name = name_of(name, found)
        self.files = listed(found, "**/*.tar") if found.is_dir() else [found] if found.is_file() else []
        if not self.files:
            raise UserError(f"path of the source {self.name} is {path}, but there is no .tar file; correct the path.")
        if (inputs == "txt") != (encoder is not None):
            raise UserError(f"The source {self.name} takes `inputs: txt` and encoder together; give both or neither.")
        self.licence, self.origin = licence, "webdataset shards"
        self.endings = _IMAGES if inputs is None else (inputs,)
        self.label, self.field, self.encoder = label, field, encoder
        self.targets = TargetColumns(label if field is None else field, labels, values)
        self.has_keys = self._has_keys()
        self.size, self.channels, self.white, self.ground = size, channels, white, ground
        if self._are_images():
            pillow_image()  # refuses here if Pillow is missing
        self.input = "image" if self._are_images() else "embedding" if encoder else "table"

    def samples(self) -> Samples:
        """Return the samples in the order of the shards and of their members.

        Raises:
            UserError: If a shard is damaged, or samples lack a member or cannot be read. The message names them.
        """
        inputs: list[Any] = []
        targets: list[Any] = []
        places: list[str] = []
        faults: list[str] = []
        for where, members in self._members():
            if self._are_images():
                check_memory(len(inputs) + 1, self.size, self.channels)
            try:
                inputs.append(self._input(members, where))
                targets.append(self._target(members, where))
                places.append(where)
            except ValueError as error:
                said = str(error).rstrip(".")
                faults.append(said if said.startswith(where) else f"{where} ({said})")
        refuse_faults(faults, len(faults) + len(targets), "samples")
        if not inputs:
            raise UserError(f"{self.files[0]} has no samples; correct the path.")
        self.places = tuple(places)
        if self.encoder is not None:
            x = embed(self.encoder, inputs)
        else:
            shapes = {tuple(one.shape): where for one, where in zip(inputs, places, strict=True)}
            if len(shapes) > 1:
                (shape, where), (other, place) = list(shapes.items())[:2]
                raise UserError(f"{where} is of shape {shape}, but {place} of {other}; give inputs of one shape.")
            x = torch.stack(inputs)
        return self.targets.samples(self.name, x, targets, None)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the names, sizes and modification times of the shards."""
        given: dict[str, Any] = {key: getattr(self, key) for key in ("label", "field", "size", "channels", "white")}
        given |= {"inputs": list(self.endings), "ground": self.ground}
        encoder = {} if self.encoder is None else {"encoder": self.encoder.name, "encoder_sha256": self.encoder.sha256}
        return {**given, **self.targets.facts(), **encoder, **files_facts(self.files)}

    def _has_keys(self) -> bool:
        """Return whether the members with targets are objects with keys, after a check of what names these."""
        keys = self.targets.labels or self.targets.values
        if keys is None:
            return self.field is not None
        name = "labels" if self.targets.labels else "values"
        if self.field is not None:
            raise UserError(f"field is {self.field} and {name} is {', '.join(keys)}; give one of them.")
        if self.label != _JSON and len(keys) > 1:
            raise UserError(
                f"{name} is {', '.join(keys)}, but label is {self.label}, whose members hold one text; give `label: "
                "json` if these are keys in JSON."
            )
        return self.label == _JSON

    def _are_images(self) -> bool:
        return self.endings[0] in _IMAGES

    def _members(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield file and key, and the needed members by their endings, of each sample."""
        for path in self.files:
            try:
                _check_end(path)
                with tarfile.open(path, "r|") as archive:  # in one pass, so that no header can lead back
                    yield from self._of_shard(path, archive)
            except (tarfile.TarError, EOFError, OSError) as error:
                raise UserError(f"{path} is not a whole tar file ({error}); restore or remove it.") from error

    def _of_shard(self, path: Path, archive: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
        present, members = "", dict[str, bytes]()
        for member in archive:
            folder, slash, file = member.name.rpartition("/")
            stem, _, ending = file.partition(".")
            if not member.isfile() or not stem or "__MACOSX" in folder.split("/"):
                continue
            key = f"{folder}{slash}{stem}"
            if key != present:
                if members:
                    yield f"{path}, {present}", members
                present, members = key, {}
            ending = ending.lower()
            if ending in members:
                raise UserError(f"{path}, {key} has the member {ending} twice; write the shard again.")
            if ending in (*self.endings, self.label):
                if member.size > _LARGEST:
                    raise UserError(
                        f"{path}, {member.name} has {member.size:,} bytes, but at most {_LARGEST:,} are read."
                    )
                content = archive.extractfile(member)
                members[ending] = b"" if content is None else content.read()
        if members:
            yield f"{path}, {present}", members

    def _input(self, members: dict[str, bytes], where: str) -> Tensor | str:
        endings = [ending for ending in self.endings if ending in members]
        if len(endings) != 1:
            wanted = "image" if len(self.endings) > 1 else self.endings[0]
            raise ValueError(f"it has {len(endings)} members with inputs ({wanted}), not one")
        content = members[endings[0]]
        if self._are_images():
            return as_square(content, self.size, self.channels, self.white, self.ground)
        if self.encoder is not None:
            return content.decode()  # an error of which is a ValueError
        array = np.atleast_1d(parse_npy(content))
        if not (np.abs(array.astype(np.float64)) <= LARGEST).all():
            raise ValueError("its array holds a number that is not a finite float32")
        return torch.from_numpy(array.astype(np.float32)).flatten()

    def _target(self, members: dict[str, bytes], where: str) -> Any:
        if self.label not in members:
            raise ValueError(f"it has no member {self.label} with its target")
        content: Any = members[self.label]
        if self.has_keys:
            row = parse_json(content, where, dict, "correct the member", lenient=True)
        else:
            row = {self.targets.columns[0]: content.decode()}
        return self.targets.read(row, f"{where}, {self.label}")


def _check_end(path: Path) -> None:
    """Refuse a file that is cut off, which `tarfile` may take for a whole one: it must end in a block of zeros."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - tarfile.BLOCKSIZE))
        if size % tarfile.BLOCKSIZE or file.read().strip(b"\0"):
            raise tarfile.TarError("it has no end mark")
