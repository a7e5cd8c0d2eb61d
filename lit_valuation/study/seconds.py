"""The seconds that each way to rank the owners takes: training with the answers, and scores that need none."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from lit_valuation.data.hard_cases import HardCases
from lit_valuation.encoders import Encoder
from lit_valuation.exchange.proxy_scores import mean_psi, relative_residual
from lit_valuation.module import ClassifierTask
from lit_valuation.samples import Samples
from lit_valuation.training.retrain import TrainingRecipe, accuracies
from lit_valuation.training.retrain_many import retrain_many


def ranking_seconds(
    recipe: TrainingRecipe,
    baseline: ClassifierTask,
    train: Samples,
    answers: Sequence[Samples],
    cases: HardCases,
    encoder: Encoder,
    seed: int,
) -> dict[str, float]:
    """Return the seconds of the processor that it takes to score the owners' answers in each way.

    ``retraining_seconds`` are those of one training per answer from scratch and its accuracy on the held-out cases,
    ``residual_seconds`` and ``psi_seconds`` those of the scores, ``residual_cost`` and ``psi_cost`` their shares of the
    first. The encoder encodes answers and queries anew for each owner.

    Args:
        recipe: How the trainer trains.
        baseline: The trainer's model before the exchange.
        train: The trainer's samples.
        answers: The answer of each owner.
        cases: The hard cases of the trainer.
        encoder: The public encoder.
        seed: Seed of the trainings.
    """

    def retrain() -> None:
        for task in retrain_many(recipe, train, answers, seed):
            accuracies(task, {"held_out": cases.held_out})

    taken = {
        "retraining": _seconds(retrain),
        "residual": _seconds(lambda: [relative_residual(baseline, answer, cases.queries) for answer in answers]),
        "psi": _seconds(lambda: [mean_psi(encoder, answer, cases.queries) for answer in answers]),
    }
    costs = {f"{score}_cost": taken[score] / taken["retraining"] for score in ("residual", "psi")}
    return {f"{way}_seconds": seconds for way, seconds in taken.items()} | costs


def _seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin
