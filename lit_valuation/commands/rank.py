"""The verb ``rank``: the trainer finds out whose answer helps, by training with each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_only

from lit_core.errors import UserError, check_at_least, checked_first
from lit_core.files.outputs import output_folder
from lit_core.files.paths import file_sha256, resolve_data_path
from lit_core.lightning.devices import Devices
from lit_core.record import write_record
from lit_core.seeds import part_seed
from lit_valuation.encoders import Encoder
from lit_valuation.exchange.acceptance import TrainerData, accept, load_trainer_data, remove_echoes
from lit_valuation.exchange.comparison import rank_owners
from lit_valuation.exchange.folder import Received, incoming
from lit_valuation.exchange.ledger import Entry, SharingLedger, named_fingerprints, open_ledger
from lit_valuation.exchange.manifest import Answer, Query
from lit_valuation.exchange.proxy_scores import mean_psi, relative_residual
from lit_valuation.exchange.report import Ranking, RankingRow, check_plotting, write_report
from lit_valuation.exchange.trainings import TrainingResult, TrainingRuns, stack_correct
from lit_valuation.samples import Samples
from lit_valuation.training.retrain import Mode, TrainingRecipe, load_task

#: Name of the training without any answer.
NOTHING = "(nothing shared)"


def _check(seeds: int, near: float, copies: int, seed: int | None) -> None:
    if not 2 <= seeds < math.inf:
        raise UserError(f"seeds is {seeds}, but must be 2 or more; one training has no interval.")
    if not 0 <= near < 1:
        raise UserError(f"near is {near}, but must be from 0 to below 1; 0.25 takes a quarter of the natural distance.")
    check_at_least(0, copies=copies)
    part_seed(seed)


@checked_first(_check)
def rank(
    query: str,
    answers: dict[str, str],
    ckpt_path: str,
    data: str,
    output: str,
    seeds: int = 5,
    mode: Mode = "scratch",
    encoder: Encoder | None = None,
    expect_digests: dict[str, str] | None = None,
    near: float = 0.25,
    copies: int = 0,
    seed: int | None = None,
    ledger: str | None = None,
    trainer: Devices = Devices(),  # noqa: B008
) -> None:
    """Train with each owner's answer and rank the owners by the accuracy on held-out hard cases.

    An answer that is not what was asked for is refused with the reason; the others are ranked. Finished trainings are
    kept: to resume a killed command, start it again. A further answer costs its own trainings only.

    Args:
        query: Folder of the query, as it was sent.
        answers: Folders of the answers by the owners' names.
        ckpt_path: Checkpoint of your ``lit-valuation fit`` that made the query; each training repeats its settings.
        data: Folder of your own data, with the labelled shard sets train and val, and test where there is one.
        output: Folder for report.html, ranking.csv, ranking.png and the finished trainings.
        seeds: Number of trainings per owner, 2 or more.
        mode: Whether to train from scratch, or to fine-tune the checkpoint (finetune).
        encoder: Encoder that finds near copies and computes mean psi; null compares values only.
        expect_digests: The digests that the owners read out to you, by name, or their first 12 or more digits.
        near: Fraction of the natural distance between different samples, from 0 to below 1, within which an answer's
            sample counts as a copy of a hard case; 0 finds exact copies only.
        copies: Most copies of hard cases that an answer may hold, for data that repeat by nature, 0 or more; they are
            left out of the training. An answer with more copies is refused, since it gives the queries back.
        seed: First seed of the trainings, which take this one and those after it; null takes 0.
        ledger: Your ledger; null is ledger.jsonl in the folder of your data.
        trainer: Devices to train on.

    Raises:
        UserError: If an argument is wrong, the ledger does not know the query, or every answer is refused.
        RunFailure: If a training diverges.
    """
    folder, home, digests = output_folder(output), resolve_data_path(data), expect_digests or {}
    book = open_ledger(home, ledger)
    _check(seeds, near, copies, seed)
    _check_names(answers, digests)
    seed = part_seed(seed)
    check_plotting()
    sent = incoming(query, Query)
    task = load_task(ckpt_path)
    own = load_trainer_data(home, book, sent, tuple(task.classes))  # type: ignore[arg-type]
    is_main = getattr(rank_zero_only, "rank", 0) == 0

    accepted: dict[str, Received[Answer]] = {}
    shared: dict[str, Samples | None] = {NOTHING: None}
    refused: dict[str, str] = {}
    for name, path in answers.items():
        try:
            answer = accept(path, sent, digests.get(name), book)
            shared[name] = remove_echoes(path, answer.samples, own, near, copies, encoder)
            accepted[name] = answer
        except UserError as error:
            refused[name] = str(error)
            if is_main:
                print(f"{name} is refused: {error}", flush=True)
    if not accepted:
        raise UserError(f"Every answer is refused; {next(iter(refused.values()))}")

    recipe = TrainingRecipe.from_checkpoint(ckpt_path, **trainer.arguments())
    identity = {**own.hashes, "checkpoint": file_sha256(Path(ckpt_path)), "query": sent.digest}
    sets = {"held_out": own.held_out, "queries": own.queries} | ({} if own.test is None else {"test": own.test})
    runs = TrainingRuns(folder / "trainings", recipe, own.train, sets, mode, identity)
    results = runs.run(shared, range(seed, seed + seeds), is_main)
    if not is_main:
        return

    correct = {name: stack_correct(of_owner, "held_out") for name, of_owner in results.items()}
    ranks = rank_owners({name: correct[name] for name in accepted}, correct[NOTHING], seed=seed)
    rows = [
        _row(name, of_owner, accepted.get(name), shared[name], task, own, encoder) for name, of_owner in results.items()
    ]
    _record(book, sent, accepted)
    write_record(folder)
    write_report(folder, Ranking(sent, ranks, rows, refused, seeds, mode, len(own.held_out)))


def _check_names(answers: Mapping[str, str], digests: Mapping[str, str]) -> None:
    if not answers or NOTHING in answers:
        raise UserError('answers is empty or misnamed; name the folders by owner, such as \'{"alice": "in/alice"}\'.')
    for name in digests:
        if name not in answers:
            raise UserError(f"expect_digests names {name}, who is not among the answers; correct the name.")


def _row(
    name: str,
    results: Sequence[TrainingResult],
    answer: Received[Answer] | None,
    shared: Samples | None,
    task: LightningModule,
    own: TrainerData,
    encoder: Encoder | None,
) -> RankingRow:
    """Return an owner's scores over all seeds, and those that need no training."""
    scores = {key: float(stack_correct(results, key).double().mean()) for key in results[0].correct}
    if own.test is not None:
        of_hard_classes = torch.isin(own.test.y, own.queries.y.unique())
        scores["hard_classes"] = float(stack_correct(results, "test")[:, of_hard_classes].double().mean())
    residual = psi = None
    if shared is not None:
        numbered = shared.renumbered(own.train.classes)
        residual = relative_residual(task, numbered, own.queries)
        psi = None if encoder is None else mean_psi(encoder, numbered, own.queries)
    seconds = sum(result.seconds for result in results)
    return RankingRow(name, None if answer is None else answer.manifest, scores, residual, psi, seconds)


def _record(book: SharingLedger, sent: Received[Query], accepted: Mapping[str, Received[Answer]]) -> None:
    """Record each accepted answer in the ledger, unless it is there already."""
    with book.locked():
        for name, answer in accepted.items():
            if book.find("received", answer.digest) is None:
                content = named_fingerprints(answer.samples, answer.manifest.keys)
                notes = {"query": sent.digest}
                book.append(Entry("received", name, answer.digest, sent.manifest.budget, content, notes))
