"""Labelled shard sets: the format of a party's samples on disk.

A sample is a member ``<key>.png`` (uint8 images of 1, 3 or 4 channels) or ``<key>.npy`` (all other inputs, as float32)
and a member ``<key>.json`` with its target and, if known, the name of its group. The target is ``label``, the name of a
class; ``labels``, the names of the labels that it has; ``values``, a number by target column; or ``tags``, the name of
the tag of each token, or null. Texts are ``npy`` of token ids, int64, without what would pad them; where the target is
the text itself, the json member is empty. Targets are stored by name, so parties whose class indices differ can
exchange samples. JPEG members are read, but not written.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lit_core.data.shards import ShardSet, write_index, write_shard
from lit_core.data.stream import IGNORED
from lit_core.errors import RunFailure, UserError
from lit_valuation.data.images import decoded_image, pillow_image
from lit_valuation.encoders import EncoderStamp
from lit_valuation.samples import NEXT_TOKEN, NO_TOKEN, Samples, Target, next_tokens

KIND = "labelled"
#: Kinds of inputs.
INPUTS = ("image", "table", "embedding", "tokens")
_TARGETS = get_args(Target)
#: Number of token ids that are read at most.
_MOST_TOKENS = 2**31
#: Largest number of float32.
_LARGEST = float(np.finfo(np.float32).max)
#: A sample's target, as a class index, a number per column or the index of a tag per token, and its group.
_Label = tuple[int | list[float] | list[int], str | None]
_MODES: dict[int, Literal["L", "RGB", "RGBA"]] = {1: "L", 3: "RGB", 4: "RGBA"}


def write_labelled(
    folder: str | Path,
    samples: Samples,
    *,
    source: str,
    split: str,
    licence: str,
    origin: str,
    meta: Mapping[str, Any] | None = None,
    shard_size: int = 2000,
) -> None:
    """Write samples as a labelled shard set. Equal samples give equal bytes.

    Args:
        folder: Folder of the set. The index is written last, so an unfinished folder is not a set.
        samples: The samples, in this order; their keys become names of members.
        source: Name of the data that the samples come from.
        split: ``train``, ``val`` or ``test``.
        licence: Licence of the data.
        origin: Where the data come from.
        meta: Plain values to store in the index. ``input`` is the kind of the inputs, by default ``image`` for samples
            of three dimensions and ``table`` for others; ``columns`` names the columns of a table, ``encoder`` the
            encoder of embeddings, and ``vocabulary`` says what token ids mean.
        shard_size: Samples per shard, 1 or more.

    Raises:
        UserError: If there are no samples, or a key cannot be a member's name.
        RunFailure: If the disk is full.
    """
    if not len(samples):
        raise UserError(f"There are no samples to write to {folder}; a labelled set has at least one.")
    shape = list(samples.x.shape[1:])
    entries = [
        write_shard(Path(folder) / f"{start // shard_size:06d}.tar", _rows(samples, start, start + shard_size))
        for start in range(0, len(samples), shard_size)
    ]
    stored = {
        "input": "tokens" if samples.has_positions else "image" if len(shape) == 3 else "table",
        **(meta or {}),
        "classes": list(samples.classes),
        "shape": shape,
    }
    if samples.target != "class":
        stored["target"] = samples.target
    write_index(folder, entries, kind=KIND, source=source, split=split, licence=licence, origin=origin, meta=stored)


class LabelledSet:
    """A labelled shard set, read sample by sample.

    Sample i is a mapping with ``x`` (float32, images in [0, 1]), ``y`` (its target, as `Samples` describes) and
    ``index`` (i). It is safe to use in data-loading processes.

    Args:
        folder: Folder with ``index.json`` and the shards.
        verify: Whether the shards are compared with their SHA-256.

    Attributes:
        classes: Names of the classes, in the order of their indices; of the labels; or of the target columns.
        target: Kind of the targets.
        shape: Shape of one input.
        kind: Kind of the inputs: ``image``, ``table``, ``embedding`` or ``tokens``.
        encoder: The encoder that made the inputs if they are embeddings; None if the index does not tell.
        vocabulary: What token ids mean, as a name; None for other inputs.
        meta: Plain values that the index stores.

    Raises:
        UserError: If the folder is not a labelled shard set, or a shard is not what the index describes.
    """

    def __init__(self, folder: str | Path, verify: bool = True) -> None:
        self.folder = Path(folder)
        self.shards = ShardSet(folder, verify)
        index = self.shards.index
        if index["kind"] != KIND:
            raise UserError(f"{folder} holds shards of kind {index['kind']!r}, but labelled ones are needed.")
        self.meta: dict[str, Any] = index["meta"]
        self.classes = tuple(self._meta("classes", _names, "a list of different names"))
        self.shape = tuple(self._meta("shape", _sizes, "a list of sizes"))
        self.kind = str(self._meta("input", INPUTS.__contains__, f"one of {', '.join(INPUTS)}"))
        self.target: Target = self._meta("target", _TARGETS.__contains__, f"one of {', '.join(_TARGETS)}", "class")
        encoder = self._meta("encoder", _stamp, "the name and sha256 of an encoder")
        self.encoder = None if encoder is None else EncoderStamp(**encoder)
        self.vocabulary: str | None = self._meta("vocabulary", _name_or_none, "a name")
        is_text = self.kind == "tokens"
        fits = len(self.shape) == 1 and (self.target == "tags" or self.classes == (NEXT_TOKEN,))
        if is_text != (self.target in ("tags", "text")) or (is_text and not fits):
            raise UserError(
                f"{self.folder}/index.json is malformed: inputs {self.kind} cannot have the target {self.target} with "
                f"these names; prepare the set again."
            )
        self._class_index = {name: index for index, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def content(self) -> str:
        """SHA-256 of the shards."""
        return self.shards.content

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample.

        Raises:
            RunFailure: If the file is damaged.
        """
        return {key: value[0] for key, value in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Read several samples, stacked."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        different, inverse = index.unique(return_inverse=True)  # a batch across epochs may hold a sample twice
        samples = self.load(different)
        return {"x": samples.inputs()[inverse], "y": samples.y[inverse], "index": index}

    def load(self, indices: Sequence[int] | Tensor | None = None) -> Samples:
        """Read samples into memory.

        Args:
            indices: Indices of the samples; None reads all.

        Raises:
            RunFailure: If a file is damaged.
        """
        chosen = range(len(self)) if indices is None else torch.as_tensor(indices).tolist()
        rows = [self._row(index) for index in chosen]
        for key, _, x in rows:
            if x.dtype != rows[0][2].dtype:
                raise self._damaged(key, "its input is stored in another way than the inputs of other samples")
        x = torch.stack([x for _, _, x in rows]) if rows else torch.empty(0, *self.shape)
        return self._samples(x, [(key, label) for key, label, _ in rows])

    def targets(self) -> Samples:
        """Return all samples without their inputs: ``x`` has the shape ``(n, 0)``.

        Raises:
            RunFailure: If a file is damaged.
        """
        if self.target == "text":  # which is in the inputs
            return self.load()
        rows = (self.shards.read(index, ("json",)) for index in range(len(self)))
        labels = [(row["__key__"], self._label(row["__key__"], row.get("json"))) for row in rows]
        return self._samples(torch.empty(len(labels), 0), labels)

    def _samples(self, x: Tensor, labels: Sequence[tuple[str, _Label]]) -> Samples:
        keys, groups = tuple(key for key, _ in labels), tuple(group for _, (_, group) in labels)
        known = [group for group in groups if group is not None]
        if known and len(known) < len(labels):
            raise self._damaged(keys[groups.index(None)], "it has no group, but other samples have one")
        targets = [target for _, (target, _) in labels]
        if self.target == "class":
            y = torch.tensor(targets, dtype=torch.int64)
        elif self.target == "tags":
            y = torch.tensor(targets, dtype=torch.int64).reshape(len(targets), *self.shape)
        elif self.target == "text":
            y = next_tokens(x.long())
        else:
            y = torch.tensor(targets, dtype=torch.float32).reshape(len(targets), len(self.classes))
        return Samples(x, y, self.classes, keys, tuple(known) if known else None, self.target)

    def _label(self, key: str, label: Any) -> _Label:
        """Return target and group from the content of a label member."""
        if not isinstance(label, dict):
            raise self._damaged(key, f"its target is {label!r}, but must be an object with a class, labels or values")
        if not isinstance(label.get("group", ""), str):
            raise self._damaged(key, f"its group is {label['group']!r}, but must be a name")
        return self._target(key, label), label.get("group")

    def _target(self, key: str, label: Mapping[str, Any]) -> int | list[float] | list[int]:
        if self.target == "text":
            return []
        if self.target == "tags":
            return self._tags(key, label.get("tags"))
        if self.target == "class":
            if str(label.get("label")) not in self._class_index:
                raise self._damaged(key, f"its label is {label!r}, but must name a class of the index")
            return self._class_index[str(label["label"])]
        if self.target == "labels":
            names = label.get("labels")
            if not isinstance(names, list) or not all(str(name) in self._class_index for name in names):
                raise self._damaged(key, f"its labels are {names!r}, but must be names of labels of the index")
            return [float(name in names) for name in self.classes]
        values = label.get("values")
        if not isinstance(values, dict) or values.keys() != self._class_index.keys():
            raise self._damaged(key, f"its values are {values!r}, but must be a number by target column of the index")
        for name, value in values.items():
            if type(value) not in (int, float) or not abs(value) <= _LARGEST:
                raise self._damaged(key, f"its {name} is {value!r}, but must be a finite float32")
        return [float(values[name]) for name in self.classes]

    def _tags(self, key: str, tags: Any) -> list[int]:
        (length,) = self.shape
        known = {None: IGNORED, **self._class_index}
        if (
            not isinstance(tags, list)
            or len(tags) > length
            or not all(tag is None or (isinstance(tag, str) and tag in known) for tag in tags)
        ):
            raise self._damaged(key, f"its tags are {str(tags)[:200]}, but must be up to {length} names of the index")
        indices = [known[tag] for tag in tags] + [IGNORED] * (length - len(tags))
        if not any(tag is not None for tag in tags):
            raise self._damaged(key, "none of its tokens has a tag")
        return indices

    def _tokens(self, key: str, array: np.ndarray | None) -> Tensor:
        (length,) = self.shape
        if array is None or array.dtype.kind not in "ui" or array.ndim != 1 or not 1 <= len(array) <= length:
            given = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
            raise self._damaged(key, f"its input is {given}, but must be 1 to {length} token ids")
        if int(array.min()) < 0 or int(array.max()) >= _MOST_TOKENS or (self.target == "text" and len(array) < 2):
            raise self._damaged(key, "its token ids are out of range, or too few to predict one")
        x = torch.full((length,), NO_TOKEN)
        x[: len(array)] = torch.from_numpy(array.astype(np.int64))
        return x

    def _row(self, index: int) -> tuple[str, _Label, Tensor]:
        sample = self.shards[index]
        key = sample["__key__"]
        label = self._label(key, sample.get("json"))
        encoded = next((sample[extension] for extension in ("png", "jpg", "jpeg") if extension in sample), None)
        if encoded is not None:
            return key, label, self._image(key, encoded)
        array = sample.get("npy")
        if self.kind == "tokens":
            return key, label, self._tokens(key, array)
        if array is None or array.dtype.kind not in "fui" or array.shape != self.shape:
            given = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
            raise self._damaged(key, f"its input is {given}, but must be numbers of shape {self.shape}")
        if not np.isfinite(array).all():
            raise self._damaged(key, "its input holds a number that is not finite")
        return key, label, torch.from_numpy(np.array(array, dtype=np.float32))

    def _image(self, key: str, encoded: bytes) -> Tensor:
        try:
            if len(self.shape) != 3 or self.shape[0] not in _MODES:
                raise ValueError(f"it is an image, but the inputs have the shape {self.shape}")
            image = decoded_image(encoded, _MODES[self.shape[0]], self.shape[1:], formats=("PNG", "JPEG"))
        except ValueError as error:
            raise self._damaged(key, f"its image cannot be decoded ({error})") from error
        pixels = np.array(image)
        return torch.from_numpy(pixels).reshape(*self.shape[1:], self.shape[0]).permute(2, 0, 1).contiguous()

    def _damaged(self, key: str, fault: str) -> RunFailure:
        return RunFailure(f"{self.folder} is damaged at sample {key}: {fault}. Restore the set or prepare it again.")

    def _meta(self, key: str, holds: Any, rule: str, default: Any = None) -> Any:
        value = self.meta.get(key, default)
        if not holds(value):
            raise UserError(
                f'{self.folder}/index.json is malformed: "{key}" in "meta" must be {rule}; prepare the set again.'
            )
        return value


def _rows(samples: Samples, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Yield samples as members of a shard."""
    is_image = samples.x.dtype == torch.uint8 and samples.x.ndim == 4 and samples.x.shape[1] in _MODES
    for index in range(start, min(stop, len(samples))):
        label = _stored_target(samples, index)
        if samples.groups is not None:
            label["group"] = samples.groups[index]
        x = samples.x[index]
        if samples.has_positions:
            content: dict[str, Any] = {"npy": x[x != NO_TOKEN].numpy()}
        else:
            content = {"png": _png(x)} if is_image else {"npy": x.float().numpy()}
        yield {"__key__": samples.keys[index], **content, "json": label}


def _stored_target(samples: Samples, index: int) -> dict[str, Any]:
    """Return the target of a sample as its label member holds it."""
    if samples.target == "class":
        return {"label": samples.classes[int(samples.y[index])]}
    if samples.target == "text":
        return {}
    if samples.target == "tags":
        tags = [None if tag == IGNORED else samples.classes[tag] for tag in samples.y[index].tolist()]
        return {"tags": tags[: int((samples.x[index] != NO_TOKEN).sum())]}
    row = dict(zip(samples.classes, samples.y[index].tolist(), strict=True))
    return {"values": row} if samples.target == "values" else {"labels": [name for name, has in row.items() if has]}


def _png(x: Tensor) -> bytes:
    buffer = io.BytesIO()
    pixels = x.permute(1, 2, 0).numpy()
    pillow_image().fromarray(pixels[..., 0] if x.shape[0] == 1 else pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _names(value: Any) -> bool:
    named = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    return bool(named) and len(set(value)) == len(value)


def _stamp(value: Any) -> bool:
    if value is None:
        return True
    is_stamp = isinstance(value, dict) and value.keys() == {"name", "sha256"}
    return is_stamp and isinstance(value["name"], str) and isinstance(value["sha256"], str | None)


def _name_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(size) is int and size > 0 for size in value)
