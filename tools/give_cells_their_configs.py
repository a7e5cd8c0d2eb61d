"""Rewrites the finished cells in an archive, so that each holds its config as a file and not only a hash of it.

Earlier studies stored only a hash of each cell's config, which changed whenever a class or function moved. This script
was run once on docs/results/cells/moe.tar.xz. It checks each hash before removing it and leaves all measurements as
they are.

    python tools/give_cells_their_configs.py docs/results/cells/moe.tar.xz lit_moe.experiment.experiment
"""

import argparse
import hashlib
import io
import json
import tarfile
from pathlib import Path, PurePosixPath


def hash_of(config: dict) -> str:
    """Return the hash by which earlier studies knew a cell."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:16]


def converted(files: dict[str, bytes], function: str) -> dict[str, bytes]:
    """Return the files of an archive with ``cell.json`` in the place of each hash.

    Args:
        files: Contents by path.
        function: Import path of the cells' function when they were run.

    Raises:
        ValueError: If the hash of a cell is not that of the function and its values.
    """
    written = {}
    for path, content in files.items():
        name = PurePosixPath(path).name
        if name == "config_hash":
            continue
        if name == "result.json":
            result = json.loads(content)
            config = {"function": function, "commands": [], "values": result.pop("values"), "read": []}
            if result.pop("config_hash") != hash_of(config):
                raise ValueError(f"{path} was not run by {function} with the values that it names.")
            written[str(PurePosixPath(path).with_name("cell.json"))] = as_json(config)
            content = as_json(result)
        written[path] = content
    return written


def as_json(plain: dict) -> bytes:
    """Return plain values as a study writes them."""
    return (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode()


def main() -> None:
    """Rewrite an archive in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("function", help="import path of the cells' function when they were run")
    args = parser.parse_args()
    with tarfile.open(args.archive) as archive:
        members = [member for member in archive if member.isfile()]
        files = {member.name: archive.extractfile(member).read() for member in members}
    with tarfile.open(args.archive, "w:xz", preset=9) as archive:
        for path, content in sorted(converted(files, args.function).items()):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    main()
