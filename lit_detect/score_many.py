"""Many texts through a detector of a checkpoint: in batches, with a bar, the time to go, and scores that are kept."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from lit_core.checkpoint import load_checkpoint_file
from lit_core.paths import file_sha256
from lit_core.progress import duration
from lit_detect.module import DetectorTask
from lit_detect.normalize import normalize_text


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
    detector: LoadedDetector, texts: Sequence[str], batch_size: int = 16, kept: Path | None = None
) -> Scored:
    """Score texts; equal texts are scored once.

    Args:
        detector: The detector.
        texts: The texts, as they were found.
        batch_size: Texts per forward pass.
        kept: File of finished scores, to which each batch is appended, so that a killed run goes on; None keeps none.
    """
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32] for text in texts]
    done = {} if kept is None else _read(kept)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in done}
    # by length, so that a batch holds little padding; the longest first, so that the time to go is not too short
    order = sorted(missing, key=lambda key: (-len(missing[key]), key))
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    characters = sum(map(len, missing.values()))
    bar = tqdm(batches, desc=detector.name, unit="batch", disable=None if batches else True, leave=False)
    begin, read = time.perf_counter(), 0
    for number, batch in enumerate(bar):
        start = time.perf_counter()
        found = detector.task.detector.score([detector.read(missing[key]) for key in batch]).tolist()
        seconds = (time.perf_counter() - start) / len(batch)
        done |= {key: (score, seconds) for key, score in zip(batch, found, strict=True)}
        if kept is not None:
            _append(kept, [(key, *done[key]) for key in batch])
        read += sum(len(missing[key]) for key in batch)
        if number == min(1, len(batches) - 1):  # the first one also loads and warms up
            expected = (time.perf_counter() - begin) * (characters - read) / max(1, read)
            bar.write(f"{detector.name}: {len(order):,} texts to score, about {duration(expected)} to go.")
    rows = [done[key] for key in keys]
    scores = torch.tensor([score for score, _ in rows], dtype=torch.float64)
    return Scored(scores, sum(seconds for _, seconds in rows) / max(1, len(rows)))


def _read(path: Path) -> dict[str, tuple[float, float]]:
    """Return score and seconds by text; a line that a kill cut off is left out, and out of the file."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    rows = [json.loads(line) for line in whole.splitlines()]
    return {row["text"]: (row["score"], row["seconds"]) for row in rows}


def _append(path: Path, rows: Sequence[tuple[str, float, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(dict(zip(("text", "score", "seconds"), row, strict=True))) + "\n" for row in rows]
    with path.open("a") as file:
        file.write("".join(lines))
        file.flush()
        os.fsync(file.fileno())
