"""Many texts through a detector of a checkpoint: in batches, with a bar, the time to go, and scores that are kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from lit_core.files.paths import file_sha256
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.progress import duration
from lit_core.work import Journal, read_journal
from lit_detect.language.normalize import normalize_text
from lit_detect.module import DetectorTask


@dataclass(frozen=True)
class LoadedDetector:
    """A detector as its checkpoint has it.

    Args:
        task: The task, in evaluation mode.
        sha256: Hash of the checkpoint file.
        normalize: Whether the detector was trained on texts with normalised Unicode, and so reads all texts.
    """

    task: DetectorTask
    sha256: str
    normalize: bool

    @property
    def name(self) -> str:
        """Class and backbone of the detector."""
        return self.task.detector.name

    @classmethod
    def load(cls, path: str | Path) -> LoadedDetector:
        """Load the detector of a ``lit-detect fit`` checkpoint.

        Raises:
            UserError: If there is no such file, or it holds no detector.
        """
        task = DetectorTask.load(path)
        data = load_checkpoint_file(path).get("config", {}).get("data") or {}
        normalize = bool((data.get("init_args") or {}).get("normalize", False))
        return cls(task, file_sha256(Path(path)), normalize)

    def read(self, text: str) -> str:
        """Return a text as the detector gets it."""
        return normalize_text(text) if self.normalize else text

    def long_enough(self, texts: Sequence[str]) -> list[bool]:
        """Tell of each text whether it has the tokens below which the detector abstains."""
        least = max(1, self.task.min_tokens)
        return [count >= least for count in self.task.detector.count_tokens([self.read(text) for text in texts])]


@dataclass(frozen=True)
class Scored:
    """What a detector makes of texts.

    Args:
        scores: Score of each text, higher is machine, float64 ``(n,)``.
        seconds: Mean time per text.
    """

    scores: Tensor
    seconds: float


def score_many(
    detector: LoadedDetector,
    texts: Sequence[str],
    batch_size: int = 16,
    kept: Path | None = None,
    fabric: Fabric | None = None,
) -> Scored:
    """Score texts; equal texts are scored once.

    Args:
        detector: The detector.
        texts: The texts, as they were found.
        batch_size: Texts per forward pass.
        kept: Folder of finished scores, to which each batch is appended, so that a killed run goes on; None keeps none.
        fabric: This process's place among others, each of which scores a part and keeps it; None for one process.
    """
    rank, world_size = (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32] for text in texts]
    done = {} if kept is None else _read(kept, detector.sha256)
    if fabric is not None:
        fabric.barrier()  # all have read what there is, before anybody adds to it
        detector.task.to(fabric.device)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in done}
    # by length, so that a batch holds little padding; the longest first, so that the time to go is not too short
    order = sorted(missing, key=lambda key: (-len(missing[key]), key))
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)][rank::world_size]
    characters, read, begin = sum(len(missing[key]) for batch in batches for key in batch), 0, time.perf_counter()
    shows = rank == 0 and bool(batches)
    bar = tqdm(batches, desc=detector.name, unit="batch", disable=None if shows else True, leave=False)
    journal = Journal(kept / f"{detector.sha256}.{rank}.jsonl") if kept is not None and batches else None
    for number, batch in enumerate(bar):
        start = time.perf_counter()
        with nullcontext() if fabric is None else fabric.autocast():
            found = detector.task.detector.score([detector.read(missing[key]) for key in batch]).tolist()
        seconds = (time.perf_counter() - start) / len(batch)
        done |= {key: (score, seconds) for key, score in zip(batch, found, strict=True)}
        if journal is not None:
            journal.append({"text": key, "score": done[key][0], "seconds": seconds} for key in batch)
        read += sum(len(missing[key]) for key in batch)
        if shows and number == min(1, len(batches) - 1):  # the first one also loads and warms up
            expected = (time.perf_counter() - begin) * (characters - read) / max(1, read)
            bar.write(f"{detector.name}: {len(order):,} texts to score, about {duration(expected)} to go.")
    if journal is not None:
        journal.close()
    if fabric is not None and kept is not None:
        fabric.barrier()
        done = _read(kept, detector.sha256)
    rows = [done[key] for key in keys]
    scores = torch.tensor([score for score, _ in rows], dtype=torch.float64)
    return Scored(scores, sum(seconds for _, seconds in rows) / max(1, len(rows)))


def _read(folder: Path, sha256: str) -> dict[str, tuple[float, float]]:
    """Return score and seconds by text."""
    rows = [row for path in sorted(folder.glob(f"{sha256}.*.jsonl")) for row in read_journal(path)]
    return {row["text"]: (row["score"], row["seconds"]) for row in rows}
