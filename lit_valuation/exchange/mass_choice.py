"""The mass of each answer, chosen on validation data: how much of the training loss its samples get."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lit_core.files.tables import CsvWriter, figure_text
from lit_core.screen import say
from lit_valuation.exchange.acceptance import TrainerData
from lit_valuation.exchange.judging import Judged
from lit_valuation.exchange.trainings import TrainingResult, TrainingRuns, stack_scores
from lit_valuation.functional.mass import Weights, sample_weights
from lit_valuation.samples import Samples

#: Masses that are tried; None is the share by number.
GRID = (None, 0.05, 0.1, 0.2, 0.4)
#: Trainings with each of them.
SEEDS = 3
#: Owner and mass of a training; None for that without an answer.
_Tried = tuple[str | None, float | None]


@dataclass(frozen=True)
class MassCurve:
    """Mean score on the validation set with an answer at each mass that was tried, as `case_scores` says.

    Args:
        masses: The masses; None is the share by number.
        by_number: The share by number, from 0 to 1.
        scores: Estimated mean score on the whole validation set, of shape ``(masses, seeds)``.
        nothing: The same without an answer, of shape ``(seeds,)``.
    """

    masses: tuple[float | None, ...]
    by_number: float
    scores: Tensor
    nothing: Tensor

    @property
    def chosen(self) -> float | None:
        """The mass with the highest mean score, of equal ones the first."""
        return self.masses[self.best]

    @property
    def shares(self) -> tuple[float, ...]:
        """The masses as numbers."""
        return tuple(self.by_number if mass is None else mass for mass in self.masses)

    @property
    def best(self) -> int:
        """Index of the chosen mass."""
        return int(self.scores.mean(1).argmax())


def answer_weights(own: int, answer: Judged, mass: float | None, weights: Weights) -> Tensor | None:
    """Return the weights of the trainer's samples and those of an answer; None for 1 each, without mass and weights."""
    return None if mass is None and weights == "equal" else sample_weights(own, mass, answer.within)


def share_by_number(own: int, answer: Judged) -> float:
    """Return an answer's share of the samples that are trained on, from 0 to 1."""
    return len(answer.samples) / (own + len(answer.samples))


def choose_masses(
    runs: TrainingRuns,
    own: TrainerData,
    answers: Mapping[str, Judged],
    weights: Weights,
    seeds: Sequence[int],
    is_main: bool,
) -> tuple[dict[str, MassCurve], dict[str, str]]:
    """Train with each answer at each mass of the grid, and score the validation set without the held-out cases.

    Args:
        runs: The trainings of the ranking, whose sets are not used.
        own: The trainer's data.
        answers: The answers by owner.
        weights: Whether the samples of an answer count equally, or by the weights of its manifest.
        seeds: Seeds of these trainings, none of them one of the ranking's.
        is_main: Whether this process stores the results and shows progress.

    Returns:
        The curve of each owner, without the masses at which a training fails, and why the owners are refused with
        whom one fails at each mass.
    """
    if is_main:
        masses = ", ".join("by number" if mass is None else f"{mass}" for mass in GRID)
        say(f"Choosing the mass of each answer among {masses}, on the validation set without the held-out hard cases.")
    sets = {"queries": own.queries, "other_val": own.other_val}
    runs = replace(runs, sets=sets, identity={**runs.identity, "sets": list(sets)})
    shared: dict[_Tried, Samples | None] = {(None, None): None}
    given: dict[_Tried, Tensor] = {}
    for name, answer in answers.items():
        for mass in GRID:
            shared[name, mass] = answer.samples
            found = answer_weights(len(own.train), answer, mass, weights)
            given |= {} if found is None else {(name, mass): found}
    results, failed = runs.run(shared, seeds, is_main, given)
    nothing = validation_score(results[None, None], own)
    curves: dict[str, MassCurve] = {}
    refused: dict[str, str] = {}
    for name, answer in answers.items():
        succeeded = tuple(mass for mass in GRID if (name, mass) in results)
        if not succeeded:
            refused[name] = failed[name, GRID[0]]
            continue
        scores = torch.stack([validation_score(results[name, mass], own) for mass in succeeded])
        curves[name] = MassCurve(succeeded, share_by_number(len(own.train), answer), scores, nothing)
    return curves, refused


def validation_score(results: Sequence[TrainingResult], own: TrainerData) -> Tensor:
    """Estimate the mean score on the whole validation set without the held-out hard cases, float64 of ``(seeds,)``.

    A query stands for itself and for its share of the held-out cases of its class, or of all where targets are not
    classes, which were drawn from the same hard cases: it counts as often as there are such per query.
    """
    queries, others = (stack_scores(results, key).double() for key in ("queries", "other_val"))
    strata = own.queries.strata()
    sent, kept = (
        torch.bincount(part.strata(), minlength=len(own.train.classes)) for part in (own.queries, own.held_out)
    )
    stands_for = ((sent + kept) / sent)[strata].double()
    return (queries @ stands_for + others.sum(1)) / (stands_for.sum() + others.shape[1])


def curve_table(curves: Mapping[str, MassCurve]) -> str:
    """Return the curves as CSV: owner, mass, training and score; mass 0 is the training without an answer."""
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.row(["owner", "mass", "training", "validation score", "chosen"])
    for name, curve in curves.items():
        lines = [(0.0, curve.nothing, False)]
        lines += [
            (share, scores, mass == curve.chosen)
            for share, scores, mass in zip(curve.shares, curve.scores, curve.masses, strict=True)
        ]
        for share, scores, chosen in lines:
            for number, score in enumerate(scores.tolist()):
                writer.row([name, f"{share:.4f}", str(number), f"{score:.4f}", "yes" if chosen else "no"])
    return text.getvalue()


def curve_picture(curves: Mapping[str, MassCurve]) -> bytes:
    """Return a PNG of the curves: each training as a point, means as lines, the chosen mass as a ring."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(curves.items()):
        order = sorted(range(len(curve.shares)), key=curve.shares.__getitem__)
        shares, scores = [curve.shares[index] for index in order], curve.scores[order]
        colour = f"C{number % 10}"
        for seed in range(scores.shape[1]):
            axes.plot(shares, scores[:, seed].tolist(), ".", color=colour, alpha=0.5)
        means = scores.mean(1).tolist()
        axes.plot(shares, means, "-", color=colour, label=figure_text(name))
        axes.plot([curve.shares[curve.best]], [max(means)], "o", color=colour, fillstyle="none", markersize=10)
    axes.axhline(float(next(iter(curves.values())).nothing.mean()), color="grey", linewidth=1, label="nothing shared")
    axes.set_xlabel("mass: share of the training loss that the answer gets")
    axes.set_ylabel("validation score")
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
