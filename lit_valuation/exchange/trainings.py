"""The trainings of a ranking: one per owner and seed, each stored when it is finished."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor, distributed

from lit_core.errors import RunFailure, UserError
from lit_core.files.formats import read_stamped, stamp
from lit_core.files.paths import atomic_write
from lit_core.files.remade import read_or_set_aside
from lit_core.progress import duration
from lit_core.screen import progress_bar, say
from lit_valuation.data.fingerprints import fingerprints
from lit_valuation.samples import Samples
from lit_valuation.training.retrain import Mode, TrainingRecipe, case_scores, retrain

#: Name of the format of a training's result.
FORMAT = "litshift-training"
_TIMED_STEPS = 20
#: What a training is for: an owner, or an owner with something that is tried.
_Name = TypeVar("_Name", bound=Hashable)


@dataclass(frozen=True)
class TrainingResult:
    """Result of one training.

    Args:
        scores: How well each sample is predicted, as `case_scores` says, float32 of shape ``(n,)``, by name of the set.
        seconds: Duration of training and scoring.
    """

    scores: Mapping[str, Tensor]
    seconds: float


@dataclass(frozen=True)
class TrainingRuns:
    """Trains with each owner's samples, once per seed.

    Args:
        folder: Folder of the results; a training whose result is there with the same settings is not repeated.
        recipe: How to train.
        train: The trainer's own training set.
        sets: Sets to score, by name.
        mode: Whether to train from scratch or from the recipe's weights.
        identity: Everything else that a result depends on, as plain values, such as the checkpoint's hash.
    """

    folder: Path
    recipe: TrainingRecipe
    train: Samples
    sets: Mapping[str, Samples]
    mode: Mode
    identity: Mapping[str, Any]

    def run(
        self,
        shared: Mapping[_Name, Samples | None],
        seeds: Sequence[int],
        is_main: bool,
        weights: Mapping[_Name, Tensor] = MappingProxyType({}),
    ) -> tuple[dict[_Name, list[TrainingResult]], dict[_Name, str]]:
        """Train with the samples of each owner and each seed.

        Args:
            shared: Samples that each owner shares; None for nothing.
            seeds: Seeds of initial weights and sample order, the same for every owner so that results are paired.
            is_main: Whether this process stores the results and shows progress.
            weights: Weights of the samples in an owner's trainings, as `retrain` takes them; 1 each for the others.

        Returns:
            The results by owner, in the order of the seeds, and the owners with whose samples a training fails, with
            the reason. On several devices a failure ends all processes, since they would wait for each other.

        Raises:
            RunFailure: If a training without shared samples fails.
        """
        files = {
            (name, seed): self._file(samples, weights.get(name), seed)
            for name, samples in shared.items()
            for seed in seeds
        }
        # Look before the first training: all processes of a run must agree on which results are missing.
        found = {run: self._load(path) for run, path in files.items()}
        done = {run: result for run, result in found.items() if result is not None}
        missing = [run for run in files if run not in done]
        failed: dict[_Name, str] = {}
        if missing and is_main:
            finished = len(files) - len(missing)
            say(f"{len(missing)} trainings of {self.recipe.steps} steps; {finished} are finished.")
        if missing:
            expected = self._seconds() * len(missing)
            if is_main:
                say(f"They will take about {duration(expected)}. To resume a killed command, start it again.")
        for name, seed in progress_bar(missing, desc="Training", unit=" runs", shown=is_main and bool(missing)):
            if name in failed:
                continue
            start = time.perf_counter()
            try:
                task = retrain(self.recipe, self.train, shared[name], seed, self.mode, weights.get(name))
            except RunFailure as error:
                if shared[name] is None or _is_distributed():
                    raise
                failed[name] = f"a training with its samples fails: {error}"
                continue
            scored = {key: case_scores(task, samples) for key, samples in self.sets.items()}
            done[name, seed] = TrainingResult(scored, time.perf_counter() - start)
            if is_main:
                atomic_write(files[name, seed], dump_training(done[name, seed]))
        return {name: [done[name, seed] for seed in seeds] for name in shared if name not in failed}, failed

    def _load(self, path: Path) -> TrainingResult | None:
        """Return the result of a training; None if it is to be trained, since there is none or it is damaged."""
        sizes = {key: len(samples) for key, samples in self.sets.items()}
        return read_or_set_aside(path, lambda remedy: load_training(path, sizes, remedy)) if path.is_file() else None

    def _file(self, samples: Samples | None, weights: Tensor | None, seed: int) -> Path:
        content = [] if samples is None else fingerprints(samples)
        plan = {**self.identity, "shared": content, "seed": seed, "mode": self.mode, "steps": self.recipe.steps}
        plan |= {"trainer": {key: str(value) for key, value in self.recipe.trainer.items()}}
        plan |= {} if weights is None else {"weights": hashlib.sha256(weights.numpy().tobytes()).hexdigest()}
        return self.folder / f"{hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:32]}.json"

    def _seconds(self) -> float:
        """Estimate the seconds of one training from a short one; an even shorter one before it starts the processes."""
        retrain(replace(self.recipe, steps=1), self.train, None, 0, self.mode)
        steps = min(_TIMED_STEPS, self.recipe.steps)
        start = time.perf_counter()
        task = retrain(replace(self.recipe, steps=steps), self.train, None, 0, self.mode)
        trained = time.perf_counter()
        for samples in self.sets.values():
            case_scores(task, samples)
        return (trained - start) * self.recipe.steps / steps + time.perf_counter() - trained


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def stack_scores(results: Sequence[TrainingResult], key: str) -> Tensor:
    """Return how well each sample of a set is predicted, float32 of shape ``(seeds, samples)``."""
    return torch.stack([result.scores[key] for result in results])


def dump_training(result: TrainingResult) -> str:
    """Return the JSON of a training's result."""
    rows = {key: row.tolist() for key, row in result.scores.items()}
    return json.dumps({**stamp(FORMAT), "scores": rows, "seconds": result.seconds})


class _Timed(TypedDict):
    seconds: float


class _Stored(_Timed, total=False):
    scores: dict[str, list[float]]
    correct: dict[str, str]


def load_training(path: Path, sizes: Mapping[str, int], remedy: str) -> TrainingResult:
    """Read a training's result.

    Args:
        path: The file. Before version 2 it had ``correct``, a string of 0 and 1 for each set.
        sizes: Number of samples by name of the set.
        remedy: What becomes of a damaged file, for the message.

    Raises:
        UserError: If it is damaged, or of a version that this release does not read.
    """
    content = read_stamped(path, FORMAT, _Stored, remedy)
    former = content.get("correct")
    if former is not None and set("".join(former.values())) - {"0", "1"}:
        raise UserError(f"{path} is damaged: its rows are not of 0 and 1; {remedy}.")
    rows = {key: [float(c) for c in row] for key, row in (former or {}).items()} or content.get("scores", {})
    if {key: len(row) for key, row in rows.items()} != dict(sizes):
        raise UserError(f"{path} is damaged: its rows are of other sets or sizes; {remedy}.")
    return TrainingResult({key: torch.tensor(row) for key, row in rows.items()}, float(content["seconds"]))
