"""Prepared texts of a study, and short hashes of plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from lit_core.corpora import Corpus
from lit_core.files.paths import data_root
from lit_core.prepare import prepare
from lit_core.study.parts import Part


@dataclass(frozen=True)
class Texts:
    """Prepared texts.

    Args:
        root: Folder of the sources.
        names: Names of all sources.
        old: Names of the sources of pre-training.
        new: Names of the sources after the shift.
        samples: Sequences per source of a test.
    """

    root: Path
    names: tuple[str, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]
    samples: int

    def kind(self, name: str) -> str:
        """Return which text a source belongs to: old, new, or foreign, which no training sees."""
        return "old" if name in self.old else "new" if name in self.new else "foreign"

    def content_hash(self) -> str:
        """Return a short hash of the indices of all sources, which hold the hashes of their shards."""
        indices = sorted(self.root.rglob("index.json"))
        return hashlib.sha256(b"".join(path.read_bytes() for path in indices)).hexdigest()[:16]


def prepare_once(
    corpora: Sequence[Part[Corpus]], vocab_size: int, max_bytes: int | None
) -> tuple[Path, tuple[str, ...]]:
    """Prepare corpora with one tokenizer below the data root, unless that was done before.

    Args:
        corpora: The corpora.
        vocab_size: Tokens of the tokenizer that is trained on all of them.
        max_bytes: Largest number of bytes of text that is read of each; None reads all.

    Returns:
        The folder, and the names of the sources.
    """
    built = [corpus.build() for corpus in corpora]
    described = [corpus.description for corpus in corpora]
    root = data_root() / "moe" / "study" / f"texts-{digest([described, vocab_size, max_bytes])}"
    names = tuple(corpus.name for corpus in built)
    if not all((root / name).is_dir() for name in names):
        with redirect_stdout(StringIO()):  # its summary and next command are not the study's
            prepare(str(root), built, vocab_size=vocab_size, max_bytes=max_bytes)
    return root, names


def digest(described: Any) -> str:
    """Return a short hash of plain values."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
