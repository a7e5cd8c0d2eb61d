"""The trainings behind a ranking: one per owner and seed, each kept when it is done."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from lit_core.files.paths import atomic_write
from lit_core.progress import duration
from lit_valuation.exchange.ledger import fingerprints
from lit_valuation.samples import Samples
from lit_valuation.training.retrain import Mode, TrainingRecipe, is_correct, retrain

_TIMED_STEPS = 20


@dataclass(frozen=True)
class TrainingResult:
    """What came of a training.

    Args:
        correct: Whether each sample is classified correctly, by name of the set.
        seconds: How long it took.
    """

    correct: Mapping[str, Tensor]
    seconds: float


@dataclass(frozen=True)
class TrainingRuns:
    """Trains with each owner's samples, over seeds.

    Args:
        folder: Where what is done is kept; what was asked for in the same way before is not trained again.
        recipe: How to train.
        train: The trainer's own training set.
        sets: What is scored, by name.
        mode: From scratch, or from the recipe's weights.
        identity: What else the outcome depends on, as plain values, such as the checkpoint's hash.
    """

    folder: Path
    recipe: TrainingRecipe
    train: Samples
    sets: Mapping[str, Samples]
    mode: Mode
    identity: Mapping[str, Any]

    def run(
        self, shared: Mapping[str, Samples | None], seeds: Sequence[int], says: bool
    ) -> dict[str, list[TrainingResult]]:
        """Return what came of each training, by owner and in the order of the seeds.

        Args:
            shared: What each owner shares; None for nothing.
            seeds: Seeds of weights and order; with the same seeds all are compared in pairs.
            says: Whether this process keeps the results and shows progress.
        """
        files = {(name, seed): self._file(samples, seed) for name, samples in shared.items() for seed in seeds}
        # Looked up before the first training: the processes of a run on several devices must agree on what is missing.
        missing = [cell for cell, path in files.items() if not path.exists()]
        done: dict[tuple[str, int], TrainingResult] = {}
        if missing and says:
            print(
                f"{len(missing)} trainings of {self.recipe.steps} steps; {len(files) - len(missing)} are there.",
                flush=True,
            )
        if missing:
            expected = self._seconds() * len(missing)
            if says:
                print(f"They will take about {duration(expected)}; a killed run goes on where it was.", flush=True)
        for name, seed in tqdm(
            missing, desc="training", unit="run", disable=None if says and missing else True, leave=False
        ):
            start = time.perf_counter()
            task = retrain(self.recipe, self.train, shared[name], seed, self.mode)
            found = {key: is_correct(task, samples) for key, samples in self.sets.items()}
            done[name, seed] = TrainingResult(found, time.perf_counter() - start)
            if says:
                atomic_write(files[name, seed], _dump(done[name, seed]))
        return {name: [done.get((name, seed)) or _load(files[name, seed]) for seed in seeds] for name in shared}

    def _file(self, samples: Samples | None, seed: int) -> Path:
        content = [] if samples is None else fingerprints(samples)
        plan = {**self.identity, "shared": content, "seed": seed, "mode": self.mode, "steps": self.recipe.steps}
        plan |= {"trainer": {key: str(value) for key, value in self.recipe.trainer.items()}}
        return self.folder / f"{hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:32]}.json"

    def _seconds(self) -> float:
        """Return about how long a training takes, from a short one after the first, which sets processes up."""
        retrain(replace(self.recipe, steps=1), self.train, None, 0, self.mode)
        steps = min(_TIMED_STEPS, self.recipe.steps)
        start = time.perf_counter()
        task = retrain(replace(self.recipe, steps=steps), self.train, None, 0, self.mode)
        trained = time.perf_counter()
        for samples in self.sets.values():
            is_correct(task, samples)
        return (trained - start) * self.recipe.steps / steps + time.perf_counter() - trained


def stack(trained: Sequence[TrainingResult], key: str) -> Tensor:
    """Return whether each sample of a set is classified correctly, ``(seeds, samples)``."""
    return torch.stack([one.correct[key] for one in trained])


def _dump(trained: TrainingResult) -> str:
    rows = {key: "".join("01"[right] for right in row.long().tolist()) for key, row in trained.correct.items()}
    return json.dumps({"correct": rows, "seconds": trained.seconds})


def _load(path: Path) -> TrainingResult:
    content = json.loads(path.read_bytes())
    rows = {key: torch.tensor([c == "1" for c in row], dtype=torch.bool) for key, row in content["correct"].items()}
    return TrainingResult(rows, float(content["seconds"]))
