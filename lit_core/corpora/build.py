"""The stages by which ``prepare`` turns a corpus into shards: gather, split, encode, finish."""

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

from lit_core import __version__
from lit_core.corpora.base import Corpus
from lit_core.corpora.gather import Gathered, divide
from lit_core.corpora.write import Job, jobs_of, token_dtype, write_jobs
from lit_core.data.prepared import index_hashes
from lit_core.data.shards import write_index
from lit_core.errors import RunFailure
from lit_core.files.formats import stamp
from lit_core.files.json_files import read_json
from lit_core.files.paths import atomic_write, remove_folder
from lit_core.files.working_folder import PREPARED, RECORD
from lit_core.lm.tokenizer import Tokenizer
from lit_core.record import versions
from lit_core.screen import progress_bar, say


class CorpusBuild:
    """The build of token shards from one corpus.

    1. `gather` writes the corpus's text to one file and splits its documents.
    2. `sample` reads training text of several builds, for a new tokenizer.
    3. `plan` divides the splits into shards, once the tokenizer is known.
    4. `encode` writes the shards of several builds.
    5. `finish` writes the indices and the record.

    Args:
        corpus: The corpus.
        settings: Settings of ``prepare`` on which the shards depend, as plain values.
        gathered: The text of the corpus in one file.
        work: Folder of the unfinished work of this build.
    """

    def __init__(self, corpus: Corpus, settings: dict[str, Any], gathered: Gathered, work: Path) -> None:
        self.corpus, self.settings, self.gathered, self.work = corpus, settings, gathered, work
        division = {key: settings[key] for key in ("val_fraction", "test_fraction", "max_bytes", "seed")}
        self.splits = divide(gathered, corpus.name, **division)
        self.jobs: list[Job] = []
        self.folder = work

    def plan(self, tokenizer: Tokenizer) -> None:
        """Divide the splits into shards, in a folder of its own for this tokenizer and these settings."""
        self.folder = self.work / f"shards-{_digest([self.settings, tokenizer.sha256, tokenizer.start])}"
        _remove_others(self.folder, "shards-*")
        self.jobs = jobs_of(
            self.gathered.path, self.splits, self.folder, self.corpus.name, self.settings["shard_bytes"]
        )

    def finish(self, tokenizer: Tokenizer) -> Path:
        """Write the indices and the record; return the folder of the finished source."""
        finished = self.folder / "sets"
        for left in finished.rglob(".*.tmp"):  # of a killed run
            left.unlink()
        for split, spans in self.splits.items():
            entries = [read_json(job.entry) for job in self.jobs if job.shard.parent.name == split]
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
            **stamp(PREPARED),
            "release": __version__,
            "versions": versions(),
            "settings": self.settings,
            "tokenizer": tokenizer.sha256,
            "text": {
                "sha256": self.gathered.sha256,
                "bytes": sum(span.size for span in self.gathered.spans),
                "documents": len(self.gathered.ids),
                "duplicates_left_out": self.gathered.duplicates,
            },
            "sets": index_hashes(finished),
        }
        atomic_write(finished / RECORD, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
        return finished


def gather(corpus: Corpus, settings: dict[str, Any], work: Path) -> CorpusBuild:
    """Write the text of a corpus to one file, or reuse that of a killed run, and split its documents.

    Args:
        corpus: The corpus.
        settings: Settings of ``prepare`` on which the shards depend, as plain values.
        work: Folder of unfinished work of all corpora.

    Returns:
        The build, with its documents split.
    """
    folder = work / corpus.name / f"text-{_digest(settings['corpus'])}"
    _remove_others(folder, "text-*")
    with _bar(f"Reading {corpus.name}") as advance:
        return CorpusBuild(corpus, settings, Gathered.make(corpus, folder, advance), work / corpus.name)


def sample(builds: Sequence[CorpusBuild], size: int) -> Iterator[str]:
    """Yield training text for a tokenizer, in equal parts from all builds.

    Args:
        builds: Builds with gathered text.
        size: Bytes of text in total, roughly.
    """
    for build in builds:
        left = size // len(builds)
        with build.gathered.path.open("rb") as file:
            for span in build.splits["train"]:
                if left <= 0:
                    break
                file.seek(span.offset)
                yield file.read(span.size).decode()
                left -= span.size


def encode(builds: Sequence[CorpusBuild], tokenizer: Tokenizer, workers: int) -> None:
    """Write the shards that are not on disk yet.

    Args:
        builds: Builds with gathered text.
        tokenizer: Converts text to tokens.
        workers: Number of processes, 1 or more.

    Raises:
        RunFailure: If the disk is too full or a worker dies.
    """
    for build in builds:
        build.plan(tokenizer)
    jobs = [job for build in builds for job in build.jobs]
    missing = [job for job in jobs if not (job.entry.is_file() and job.shard.is_file())]
    size = sum(job.size for job in missing)
    if missing:
        _check_room(builds[0].work, missing[0], size, tokenizer)
    with _bar("Encoding", size) as advance:
        write_jobs(missing, tokenizer, workers, advance)


def _check_room(folder: Path, job: Job, size: int, tokenizer: Tokenizer) -> None:
    """Refuse shards that will not fit on the disk before any is written."""
    with job.text.open("rb") as file:
        text = file.read(100_000)
    tokens_per_byte = len(tokenizer.encode(text.decode(errors="ignore"))) / len(text)
    needed = int(size * tokens_per_byte * np.dtype(token_dtype(tokenizer)).itemsize)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RunFailure(
            f"The shards need about {needed / 1e9:.1f} GB below {folder}, where {free / 1e9:.1f} GB are free; free "
            "some space or choose another root."
        )


@contextmanager
def _bar(description: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """Show progress in bytes on a terminal; print one line elsewhere."""
    if not sys.stderr.isatty():
        say(f"{description}{'' if total is None else f' {total:,} bytes'}.")
    with progress_bar(desc=description, total=total, unit="B", unit_scale=True) as bar:
        yield bar.update


def _remove_others(folder: Path, pattern: str) -> None:
    """Remove unfinished work of other settings."""
    for other in folder.parent.glob(pattern):
        if other != folder:
            remove_folder(other)


def _digest(settings: object) -> str:
    text = json.dumps([stamp("litshift-work"), settings], sort_keys=True)  # work of other versions is not resumed
    return hashlib.sha256(text.encode()).hexdigest()[:12]
