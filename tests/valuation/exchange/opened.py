"""Everything that can be read out of a query or an answer, from the bytes of its files, as names of entries."""

import io
import json
import struct
import tarfile
import zipfile

import numpy as np
import torch

#: Mappings whose keys are those of the data, of a model or of a selector.
FREE = ("contents.classes", "choice.settings", "choice.facts", "init_args", "state_dict", "values")
#: What a zip file of torch has beside the pickle and the numbers, the same in each.
CONSTANT = {".format_version", ".storage_alignment", "byteorder", "version", ".data/serialization_id"}


def leaves(node, path=""):
    """Yield each name below which a plain value lies; ``[]`` stands for the members of a list, ``*`` for free keys."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            name = "*" if path.split(".")[-1] in FREE or path.endswith(FREE) else key
            yield from leaves(value, f"{path}.{name}" if path else name)
    elif isinstance(node, list | tuple) and len(node):
        for value in node:
            yield from leaves(value, f"{path}[]")
    elif node is not None and not isinstance(node, dict | list | tuple):
        yield path


def of_png(content):
    """Return the one name of a picture that has nothing but its size and its pixels."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, start = [], 8
    while start < len(content):
        (length,) = struct.unpack(">I", content[start : start + 4])
        chunks.append(content[start + 4 : start + 8])
        start += length + 12
    assert {*chunks} == {b"IHDR", b"IDAT", b"IEND"}, chunks
    return ["png"]


def of_tar(content):
    names = set()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for number, member in enumerate(archive):
            about = (member.uid, member.gid, member.uname, member.gname, member.mtime, member.mode)
            assert about == (0, 0, "litshift", "litshift", 0, 0o644) and not member.pax_headers and member.isreg()
            key, ending = member.name.split(".")
            assert key == f"{number // 2:06d}"
            inner = archive.extractfile(member).read()
            if ending == "json":
                names |= {f"json: {name}" for name in leaves(json.loads(inner))}
            else:
                names |= {*(of_png(inner) if ending == "png" else of_npy(inner, ending))}
    return names


def of_npy(content, name):
    """Return the one name of an array whose file holds its numbers and what numpy needs to read them."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    buffer = io.BytesIO()
    np.save(buffer, array)
    assert buffer.getvalue() == content
    return [name]


def of_checkpoint(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {member.filename.split("/", 1)[1] for member in archive.infolist()}
        assert not any(member.comment for member in archive.infolist()) and not archive.comment
    stored = {name for name in members if name.startswith("data/")}
    assert members - stored - CONSTANT == {"data.pkl"}
    whole = torch.load(io.BytesIO(content), weights_only=True)
    weights = {name: weight.numel() * weight.element_size() for name, weight in whole["state_dict"].items()}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:  # no number is stored that no weight shows
        assert sum(archive.getinfo(f"archive/{name}").file_size for name in stored) == sum(weights.values())
    return leaves({**whole, "state_dict": dict.fromkeys(weights, 0)})


def of_probe(content):
    assert of_npy(content, "")
    stack = np.load(io.BytesIO(content), allow_pickle=False)
    assert stack.dtype == np.float32 and stack.ndim == 3
    return ["[0]", "[1:]"]


def entries(folder):
    """Return the names of all that a folder to be sent holds, by the kind of its files."""
    found = {}
    for path in folder.iterdir():
        content = path.read_bytes()
        if path.suffix == ".json":
            names = leaves(json.loads(content))
        else:
            names = {".tar": of_tar, ".ckpt": of_checkpoint, ".npy": of_probe}[path.suffix](content)
        kind = "000000.tar" if path.suffix == ".tar" else path.name
        found[kind] = {*names}
    return found
