"""A corpus on its way to shards: gathered, divided, encoded, finished."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from lit_core import __version__
from lit_core.corpora.base import Corpus
from lit_core.corpora.gather import Gathered, divide
from lit_core.corpora.write import Job, jobs_of, token_dtype, write_jobs
from lit_core.data.shards import write_index
from lit_core.errors import RunFailure
from lit_core.files.paths import atomic_write
from lit_core.files.working_folder import RECORD
from lit_core.lm.tokenizer import Tokenizer


class Source:
    """A corpus with the settings by which it becomes shards.

    Args:
        corpus: Where the documents come from.
        settings: What the shards depend on, as plain values.
        gathered: The documents.
        work: Folder of unfinished work of this source.
    """

    def __init__(self, corpus: Corpus, settings: dict[str, Any], gathered: Gathered, work: Path) -> None:
        self.corpus, self.settings, self.gathered, self.work = corpus, settings, gathered, work
        division = {key: settings[key] for key in ("val_fraction", "test_fraction", "max_bytes", "seed")}
        self.splits = divide(gathered, corpus.name, **division)
        self.jobs: list[Job] = []
        self.folder = work

    def plan(self, tokenizer: Tokenizer) -> None:
        """Decide on the shards, in a folder that another tokenizer or other settings do not share."""
        self.folder = self.work / f"shards-{_digest([self.settings, tokenizer.sha256])}"
        _remove_others(self.folder, "shards-*")
        self.jobs = jobs_of(
            self.gathered.path, self.splits, self.folder, self.corpus.name, self.settings["shard_bytes"]
        )

    def finish(self, tokenizer: Tokenizer) -> Path:
        """Write the indices and the record; return the folder that is the finished source."""
        finished = self.folder / "sets"
        for left in finished.rglob(".*.tmp"):  # of a killed run
            left.unlink()
        for split, spans in self.splits.items():
            entries = [json.loads(job.entry.read_bytes()) for job in self.jobs if job.shard.parent.name == split]
            write_index(
                finished / split,
                entries,
                kind="tokens",
                source=self.corpus.name,
                split=split,
                licence=self.corpus.licence,
                origin=self.corpus.origin,
                tokenizer=tokenizer.describe(),
                dtype=token_dtype(tokenizer),
                meta={"documents": len(spans), "language": self.corpus.language},
            )
        record = {
            "version": __version__,
            "settings": self.settings,
            "tokenizer": tokenizer.sha256,
            "text": {
                "sha256": self.gathered.sha256,
                "bytes": sum(span.size for span in self.gathered.spans),
                "documents": len(self.gathered.ids),
                "duplicates_left_out": self.gathered.duplicates,
            },
        }
        atomic_write(finished / RECORD, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
        return finished


def gather(corpus: Corpus, settings: dict[str, Any], work: Path) -> Source:
    """Write a corpus's text below ``work``, or find it there, and divide it."""
    folder = work / corpus.name / f"text-{_digest(settings['corpus'])}"
    _remove_others(folder, "text-*")
    with _bar(f"Reading {corpus.name}") as advance:
        return Source(corpus, settings, Gathered.make(corpus, folder, advance), work / corpus.name)


def sample(sources: Sequence[Source], size: int) -> Iterator[str]:
    """Yield training text, in equal parts from all sources, to learn a vocabulary from."""
    for source in sources:
        left = size // len(sources)
        with source.gathered.path.open("rb") as file:
            for span in source.splits["train"]:
                if left <= 0:
                    break
                file.seek(span.offset)
                yield file.read(span.size).decode()
                left -= span.size


def encode(sources: Sequence[Source], tokenizer: Tokenizer, workers: int) -> None:
    """Write the shards that are missing.

    Raises:
        RunFailure: If the disk has no room or a worker dies.
    """
    for source in sources:
        source.plan(tokenizer)
    jobs = [job for source in sources for job in source.jobs]
    missing = [job for job in jobs if not (job.entry.is_file() and job.shard.is_file())]
    size = sum(job.size for job in missing)
    if missing:
        _check_room(sources[0].work, missing[0], size, tokenizer)
    with _bar("Encoding", size) as advance:
        write_jobs(missing, tokenizer, workers, advance)


def _check_room(folder: Path, job: Job, size: int, tokenizer: Tokenizer) -> None:
    """Refuse work for which the disk has no room, before hours are spent on it."""
    with job.text.open("rb") as file:
        text = file.read(100_000)
    tokens_per_byte = len(tokenizer.encode(text.decode(errors="ignore"))) / len(text)
    needed = int(size * tokens_per_byte * np.dtype(token_dtype(tokenizer)).itemsize)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RunFailure(
            f"The shards need about {needed / 1e9:.1f} GB below {folder}, where {free / 1e9:.1f} GB are free; make "
            "room or choose another root."
        )


@contextmanager
def _bar(description: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """Show progress in bytes on a terminal; print one line elsewhere."""
    if not sys.stderr.isatty():
        print(f"{description}{'' if total is None else f' {total:,} bytes'}.", flush=True)
    with tqdm(desc=description, total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        yield bar.update


def _remove_others(folder: Path, pattern: str) -> None:
    """Remove unfinished work that was begun with other settings."""
    for other in folder.parent.glob(pattern):
        if other != folder:
            shutil.rmtree(other)


def _digest(settings: object) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
