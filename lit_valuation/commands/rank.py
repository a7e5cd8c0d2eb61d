"""The verb ``rank``: the trainer finds out whose answer helps, by training with each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_only

from lit_core.errors import LEFT_OUT, OK, UserError, check_at_least, checked_first
from lit_core.files.exclusive_folder import ExclusiveFolder
from lit_core.files.outputs import output_folder
from lit_core.files.paths import file_sha256, resolve_data_path
from lit_core.lightning.devices import Devices
from lit_core.record import check_same_work, write_record
from lit_core.screen import say
from lit_core.seeds import part_seed
from lit_valuation.batches import check_takes_weights
from lit_valuation.data.copies import check_near
from lit_valuation.encoders import Encoder
from lit_valuation.exchange.acceptance import TrainerData, load_trainer_data
from lit_valuation.exchange.comparison import rank_owners
from lit_valuation.exchange.folder import incoming
from lit_valuation.exchange.judging import Judged, judge
from lit_valuation.exchange.ledger import open_ledger
from lit_valuation.exchange.manifest import Query
from lit_valuation.exchange.mass_choice import SEEDS, MassCurve, answer_weights, choose_masses, share_by_number
from lit_valuation.exchange.parties import canonical_name, recorded_names
from lit_valuation.exchange.report import RESULTS, Ranking, RankingRow, check_plotting, write_report
from lit_valuation.exchange.trainings import TrainingResult, TrainingRuns, stack_scores
from lit_valuation.functional.mass import Weights, check_mass
from lit_valuation.training.loading import Description, described, load_task
from lit_valuation.training.retrain import Mode, TrainingRecipe
from lit_valuation.training.trial import tried

#: Name of the training without any answer.
NOTHING = "(nothing shared)"


def _check(
    seeds: int,
    near: float,
    fewest: int,
    seed: int | None,
    batch_size: int | None,
    mass: float | Literal["choose"] | None,
) -> None:
    check_mass(mass)
    if not seeds >= 2:
        raise UserError(f"seeds is {seeds}, but must be 2 or more; one training has no interval.")
    first, more = part_seed(seed), SEEDS if mass == "choose" else 0
    if seeds > 2**32 - first - more:
        raise UserError(f"seeds is {seeds}, but there are {2**32 - first - more} seeds from {first} on; give fewer.")
    check_near(near)
    check_at_least(1, fewest=fewest, batch_size=batch_size)


@checked_first(_check)
def rank(
    query: str,
    answers: dict[str, str],
    ckpt_path: str,
    data: str,
    output: str,
    model: Description | None = None,
    seeds: int = 5,
    mode: Mode = "scratch",
    batch_size: int | None = None,
    mass: float | Literal["choose"] | None = None,
    weights: Weights = "equal",
    encoder: Encoder | None = None,
    expect_digests: dict[str, str] | None = None,
    near: float = 0.25,
    fewest: int = 1,
    seed: int | None = None,
    ledger: str | None = None,
    trainer: Devices = Devices(),  # noqa: B008
) -> int:
    """Train with each owner's answer and rank the owners by how well the model then predicts held-out hard cases.

    An answer that is not what was asked for is refused with the reason; the others are ranked, and the command ends
    with 3. So it does if samples do not count, since two owners gave them or you have them already. Finished trainings
    are kept: to resume a killed command, start it again. A further answer costs its own trainings only.

    Args:
        query: Folder of the query, as it was sent.
        answers: Folders of the answers by the owners' names.
        ckpt_path: Checkpoint of your ``lit-valuation fit``, or of a LightningModule of your own, that made the query;
            each training repeats its settings and ends at its step.
        data: Folder of your own data, with the labelled shard sets train and val, and test where there is one.
        output: Folder for report.html, ranking.csv, ranking.png and the finished trainings; new, or that of the same
            ranking with fewer answers.
        model: Import path of a LightningModule of your own whose checkpoint it is, or its class_path and init_args as a
            mapping or a YAML file; arguments that you leave out are the checkpoint's hyperparameters. Null for a
            checkpoint of ``lit-valuation fit``.
        seeds: Number of trainings per owner, 2 or more.
        mode: Whether to train from scratch, or to fine-tune the checkpoint (finetune).
        batch_size: Samples per optimizer step of each training, over all devices, 1 or more; null takes that of the
            checkpoint, which one of another loader than ours does not tell.
        mass: Share of the training loss that an answer's samples get together, above 0 and below 1; null is their share
            by number. With choose, it is chosen for each answer by trainings with other seeds, scored on val without
            the held-out hard cases.
        weights: Whether the samples of an answer count equally among themselves, or by the weights of its manifest.
        encoder: Encoder that finds near copies and computes mean psi; null compares values only.
        expect_digests: The digests that the owners read out to you, by name, or their first 12 or more digits.
        near: Fraction of the natural distance between different samples, from 0 to below 1, within which two samples
            count as copies of each other; 0 finds exact copies only. What copies a sample of yours, be it a query, a
            held-out hard case, or of train, val or test, is left out and counted.
        fewest: Fewest samples that must be left of an answer, 1 or more; an answer with fewer is refused.
        seed: First seed of the trainings, which take this one and those after it; null takes 0.
        ledger: Your ledger; null is ledger.jsonl in the folder of your data.
        trainer: Devices to train on.

    Returns:
        The exit code: 0, or 3 if something was left out.

    Raises:
        UserError: If an argument is wrong, the folder holds another ranking, the ledger does not know the query, or
            every answer is refused.
        RunFailure: If the training without answers diverges.
    """
    folder, home = output_folder(output), resolve_data_path(data)
    book = open_ledger(home, ledger)
    _check(seeds, near, fewest, seed, batch_size, mass)
    digests = _check_names(answers, expect_digests or {})
    seed = part_seed(seed)
    check_plotting()
    trainer.fabric()  # refuses devices that there are not
    sent = incoming(query, Query)
    task = load_task(ckpt_path, model)
    is_weighted = (mass, weights) != (None, "equal")
    if is_weighted:
        check_takes_weights(task, "weights" if mass is None else "mass")
    own = load_trainer_data(home, book, sent, task)
    recipe = TrainingRecipe.from_checkpoint(ckpt_path, model, batch_size, **trainer.arguments())
    recipe = tried(recipe, own.train)
    is_main = getattr(rank_zero_only, "rank", 0) == 0
    busy = f"output is {folder}, which another rank is writing; wait for it, or give another folder."
    with ExclusiveFolder(folder, busy, 0 if is_main else 1):
        judged = judge(
            *(answers, sent, own, book, task),
            digests=digests,
            near=near,
            fewest=fewest,
            encoder=encoder,
            weights=weights,
        )
        if is_main:
            _print_refusals(judged.refused)
            for name, note in judged.notes.items():
                say(f"{name}: {note}.")
        if not judged.ranked:
            if is_main:
                judged.record(book, sent)
            raise UserError(f"Every answer is refused; {next(iter(judged.refused.values()))}")

        identity: dict[str, Any] = {**own.hashes, "checkpoint": file_sha256(Path(ckpt_path)), "query": sent.digest}
        identity |= {} if model is None else {"model": described(model)}
        identity |= {} if batch_size is None else {"batch_size": batch_size}
        options: dict[str, Any] = {"mode": mode, "seeds": seeds, "seed": seed, "near": near, "fewest": fewest}
        if is_weighted:  # folders of before have no such keys
            options |= {"mass": mass, "weights": weights}
        work = {"verb": "rank", **identity, **options, "encoder": encoder and [encoder.name, encoder.sha256]}
        given = {canonical_name(name): item.answer.digest for name, item in judged.ranked.items()}
        if is_main:
            check_same_work(folder, "output", {**work, "answers": given}, RESULTS)
        sets = {"held_out": own.held_out, "queries": own.queries} | ({} if own.test is None else {"test": own.test})
        runs = TrainingRuns(folder / "trainings", recipe, own.train, sets, mode, identity)
        curves: dict[str, MassCurve] = {}
        failed: dict[str, str] = {}
        if mass == "choose":
            others = range(seed + seeds, seed + seeds + SEEDS)
            curves, failed = choose_masses(runs, own, judged.ranked, weights, others, is_main)
        masses = {
            name: curves[name].chosen if mass == "choose" else mass for name in judged.ranked if name not in failed
        }
        shared = {NOTHING: None, **{name: judged.ranked[name].samples for name in masses}}
        weighted = {
            name: found
            for name, chosen in masses.items()
            if (found := answer_weights(len(own.train), judged.ranked[name], chosen, weights)) is not None
        }
        results, failed_later = runs.run(shared, range(seed, seed + seeds), is_main, weighted)
        failed |= failed_later
        if not is_main:
            return OK

        _print_refusals(failed)
        judged.refused |= failed
        judged.record(book, sent)
        scores = {name: stack_scores(of_owner, "held_out") for name, of_owner in results.items()}
        baseline = scores.pop(NOTHING)
        if not scores:
            raise UserError(f"Every answer is refused; {next(iter(judged.refused.values()))}")
        ranks = rank_owners(scores, baseline)
        rows = [
            _row(name, of_owner, judged.ranked.get(name), masses.get(name), own) for name, of_owner in results.items()
        ]
        ranked = {name: digest for name, digest in given.items() if name in map(canonical_name, scores)}
        write_record(folder, work={**work, "answers": ranked})
        kept = {name: curve for name, curve in curves.items() if name in scores}
        about = seeds, mode, len(own.held_out), mass, weights, kept, own.held_out.target
        write_report(folder, Ranking(sent, ranks, rows, judged.refused, judged.notes, *about))
        return LEFT_OUT if judged.left_out else OK


def _print_refusals(refused: Mapping[str, str]) -> None:
    for name, reason in refused.items():
        say(f"{name} is refused: {reason}")


def _check_names(answers: Mapping[str, str], digests: Mapping[str, str]) -> dict[str, str]:
    """Return the digests by the names of the answers, however both are spelled."""
    if not answers:
        raise UserError('answers is empty; name the folders by owner, such as \'{"alice": "in/alice"}\'.')
    recorded_names([NOTHING, *answers], "answers", [], True, "")
    owner_of = {canonical_name(name): name for name in answers}
    for name in recorded_names(list(digests), "expect_digests", [], True, ""):
        if canonical_name(name) not in owner_of:
            raise UserError(f"expect_digests names {name}, who is not among the answers; correct the name.")
    return {owner_of[canonical_name(name)]: digest for name, digest in digests.items()}


def _row(
    name: str, results: Sequence[TrainingResult], judged: Judged | None, mass: float | None, own: TrainerData
) -> RankingRow:
    """Return an owner's scores over all seeds, beside those that need no training."""
    scores = {key: float(stack_scores(results, key).double().mean()) for key in results[0].scores}
    if own.test is not None and own.test.target == "class":
        of_hard_classes = torch.isin(own.test.y, own.queries.y.unique())
        scores["hard_classes"] = float(stack_scores(results, "test")[:, of_hard_classes].double().mean())
    seconds = sum(result.seconds for result in results)
    if judged is None:
        return RankingRow(name, None, 0, None, scores, None, None, seconds)
    share = share_by_number(len(own.train), judged) if mass is None else mass
    count = len(judged.samples)
    return RankingRow(name, judged.answer.manifest, count, share, scores, judged.residual, judged.psi, seconds)
