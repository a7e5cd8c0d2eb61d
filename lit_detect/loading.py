"""Loading the detector of a checkpoint, and scoring many texts with it: in batches, with a progress bar, resumable."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from lit_core.cli.arguments import read_config
from lit_core.cli.run_folder import packaged_configs
from lit_core.errors import UserError, did_you_mean
from lit_core.files.paths import file_sha256
from lit_core.lightning.checkpoint import data_argument, load_checkpoint_file
from lit_core.lightning.step_logging import ratio
from lit_core.origin import keeps_origin
from lit_core.progress import progress
from lit_core.study.parts import Part
from lit_core.work import FinishedRows
from lit_detect.calibration import Calibration
from lit_detect.default import DEFAULT, default_detector
from lit_detect.detectors import Detector, EncoderDetector, ZeroShotDetector
from lit_detect.detectors.normalization import with_normalization
from lit_detect.functional.calibration import Platt
from lit_detect.golden import check_scores_stand
from lit_detect.judging import Judge
from lit_detect.module import DetectorTask


def load_checkpoint(path: str | Path, argument: str = "--ckpt_path") -> Judge:
    """Return the judge of a ``lit-detect fit`` checkpoint, on the CPU.

    Where its detector was trained on texts with normalised Unicode, it normalises each text first.

    Args:
        path: The checkpoint file.
        argument: Name of the argument that gave the path, for messages.

    Raises:
        UserError: If there is no such file, or it holds no detector that was trained or fitted.
    """
    checkpoint = load_checkpoint_file(path, argument)
    if "detector" not in checkpoint or "hyper_parameters" not in checkpoint:
        raise UserError(f"{argument} is {path}, which holds no detector; give a checkpoint of lit-detect fit.")
    task = DetectorTask.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()
    task.detector.require_fitted()
    judge = task.judge(normalize=bool(data_argument(checkpoint, "normalize")))
    return replace(judge, checkpoint_sha256=file_sha256(Path(path)))


def load(name: str, calibration: str | Path | None = None) -> Judge:
    """Return what judges texts as ``lit-detect predict`` does, on the CPU.

    Example:
        >>> import lit_detect
        >>> detector = lit_detect.load("default")  # doctest: +SKIP
        >>> for found in detector.judge(["A text.", "Another text."]):  # doctest: +SKIP
        ...     print(found.decision, found.probability, found.reason, found.windows)

    Args:
        name: ``default`` (see `lit_detect.default`), a checkpoint of ``lit-detect fit``, the name of a shipped score
            that needs no training such as log_likelihood or fast_detect_gpt, or the name or folder of a Hugging Face
            classifier whose config says which label means machine. A score decides nothing without a calibration.
        calibration: File of ``lit-detect calibrate`` whose human texts decide; None decides by the fitted threshold, or
            of the default detector by its own human texts.

    Raises:
        UserError: If there is no such detector, it was not trained, or the calibration is of another one or of other
            scores than it has now.
    """
    if calibration is None and name == DEFAULT:
        calibration = DEFAULT
    found = None if calibration is None else Calibration.load(calibration)
    is_checkpoint = Path(name).is_file() or name.endswith(".ckpt")
    if found is not None:
        found.check_checkpoint(name if is_checkpoint else None)
    judge = load_checkpoint(name, "The detector's checkpoint") if is_checkpoint else _untrained(name)
    judge = replace(judge, calibration=found)
    check_scores_stand(judge)
    return judge


def _untrained(name: str) -> Judge:
    """Return the judge of a detector that needs no checkpoint; see `load`."""
    if name == DEFAULT:
        return Judge(with_normalization(default_detector()).eval(), platt=Calibration.load(DEFAULT).platt)
    shipped = _shipped()
    if name in shipped:
        detector = Part.read(Detector, shipped[name], (), name).build()
    elif Path(name).is_dir() or not (hint := did_you_mean(name, {DEFAULT, *shipped}, nearness=0.8)):
        try:
            detector = EncoderDetector(name, max_tokens=None)
        except UserError as error:
            raise UserError(f"detector is {name}: {error}") from error
    else:
        raise UserError(f"There is no detector {name}.{hint}")
    detector.eval().require_fitted()
    if isinstance(detector, ZeroShotDetector):
        return Judge(detector)
    return Judge(detector, threshold=0.0, platt=Platt(1.0, 0.0))


def _shipped() -> dict[str, Any]:
    """Return the shipped detectors that need no training, as configs describe them, by the names of their configs."""
    paths = sorted((packaged_configs() / "detect" / "detector").glob("*.yaml"))
    described = {path.stem: read_config(str(path))["model"]["init_args"]["detector"] for path in paths}
    return {
        name: one
        for name, one in described.items()
        if issubclass(locate(one["class_path"]), ZeroShotDetector)  # type: ignore[arg-type]
    }


@keeps_origin
def trained(checkpoint: str) -> Detector:
    """Return the detector of a finished run, as a member of an ensemble or for an attack to ask.

    It scores texts as they were found: where it was trained on normalised Unicode, it normalises each text first.

    Args:
        checkpoint: A checkpoint of ``lit-detect fit``. The path is saved in checkpoints, so the file must stay there.

    Raises:
        UserError: If the file is no such checkpoint.
    """
    return load_checkpoint(checkpoint, "A detector's checkpoint").detector


@keeps_origin
def load_detector(ckpt_path: str) -> Detector:
    """Return what `trained` does, for the configs of attacks, whose argument has this name.

    Args:
        ckpt_path: A checkpoint of ``lit-detect fit``.

    Raises:
        UserError: If the file is no such checkpoint.
    """
    return trained(ckpt_path)


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
    judge: Judge,
    texts: Sequence[str],
    batch_size: int = 16,
    folder: Path | None = None,
    fabric: Fabric | None = None,
) -> Scored:
    """Score texts; equal texts are scored once.

    Args:
        judge: The judge whose detector scores.
        texts: The texts, without any normalisation.
        batch_size: Windows of texts per forward pass.
        folder: Folder of finished scores, to which each batch is appended, so that a killed run can be resumed; None
            writes none.
        fabric: The processes that share the texts, through `folder`; None for this process alone.

    Raises:
        UserError: If another process is writing scores in `folder`.
    """
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32] for text in texts]
    text_of = dict(zip(keys, texts, strict=True))
    if folder is None:
        rows = {row["text"]: row for batch in _score_batches(judge, text_of, batch_size, fabric) for row in batch}
    else:
        with FinishedRows(
            folder,
            key="text",
            busy=f"{folder} is being written by another report; wait for it, or give another output.",
            journals=f"windows-{judge.checkpoint_sha256}.*.jsonl",
            rank=0 if fabric is None else fabric.global_rank,
            group=fabric,
            values=("score", "seconds"),
        ) as finished:
            missing = {key: text_of[key] for key in finished.missing(keys)}
            for batch in _score_batches(judge, missing, batch_size, fabric):
                finished.append(batch)
            rows = finished.gather()
    scores = torch.tensor([rows[key]["score"] for key in keys], dtype=torch.float64)
    return Scored(scores, ratio(sum(rows[key]["seconds"] for key in keys), len(keys)))


def _score_batches(
    judge: Judge, texts: Mapping[str, str], batch_size: int, fabric: Fabric | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each batch that this rank scores: text by key, score, and seconds per text."""
    rank, world_size = (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
    if fabric is not None:
        judge.detector.to(fabric.device)
    # by length, so that a batch holds little padding; the longest first, so that the time to go is not too short
    order = sorted(texts, key=lambda key: (-len(texts[key]), key))
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)][rank::world_size]
    task = f"{judge.name}: {len(order):,} texts to score"
    for batch in progress(
        batches, judge.name, "batches", task, rank == 0, lambda batch: sum(len(texts[key]) for key in batch)
    ):
        start = time.perf_counter()
        with nullcontext() if fabric is None else fabric.autocast():
            scores = judge.scores([texts[key] for key in batch], batch_size).tolist()
        seconds = (time.perf_counter() - start) / len(batch)
        yield [{"text": key, "score": score, "seconds": seconds} for key, score in zip(batch, scores, strict=True)]
