"""The verb ``rank``: whose answer helps, found by training with each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only

from lit_core.errors import UserError
from lit_core.files.paths import file_sha256, resolve_data_path
from lit_core.lightning.devices import Devices
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.encoders import Encoder
from lit_valuation.exchange.comparison import rank_owners
from lit_valuation.exchange.echo import exact_echoes, near_echoes
from lit_valuation.exchange.folder import Received, incoming
from lit_valuation.exchange.ledger import LEDGER, Entry, SharingLedger, named_fingerprints
from lit_valuation.exchange.manifest import Answer, Query
from lit_valuation.exchange.proxy_scores import mean_psi, relative_residual
from lit_valuation.exchange.report import Ranking, RankingRow, check_plotting, write_report
from lit_valuation.exchange.trainings import TrainingRuns, stack
from lit_valuation.samples import Samples, merge_samples
from lit_valuation.training.retrain import Mode, TrainingRecipe, load_task

#: Name of the training without any answer.
NOTHING = "(nothing shared)"


@dataclass(frozen=True)
class Home:
    """What the trainer has.

    Args:
        train: The training set.
        queries: The hard cases that were sent.
        held_out: Those that were not.
        test: The test set; None where there is none.
        hashes: SHA-256 of the index of each split.
    """

    train: Samples
    queries: Samples
    held_out: Samples
    test: Samples | None
    hashes: Mapping[str, str]


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
    ledger: str | None = None,
    trainer: Devices = Devices(),  # noqa: B008
) -> None:
    """Train with each owner's answer and rank the owners by the accuracy on held-out hard cases.

    An answer that is not what was asked for is refused with the reason and the others are ranked. Finished trainings
    are kept, so the same command goes on after a kill, and further answers cost their own trainings only.

    Args:
        query: Folder of the query, as it was sent.
        answers: Folders of the answers by the owners' names.
        ckpt_path: Checkpoint of your ``lit-valuation fit`` that made the query; it is trained again as then.
        data: Folder of your own data, with the labelled shard sets train and val, and test where there is one.
        output: Folder for report.html, ranking.csv, ranking.png and the finished trainings.
        seeds: Number of trainings per owner, 2 or more.
        mode: Whether to train from scratch, or to go on from the checkpoint (finetune).
        encoder: Encoder to look for near copies with and to score without training; null looks at values only.
        expect_digests: The digests that the owners read out to you, by name; or their first 12 or more digits.
        near: Part of the natural distance between different samples, from 0 to below 1, within which an answer's sample
            counts as a copy of a hard case; 0 finds exact copies only.
        copies: Most copies of hard cases that an answer may hold, where data repeat by nature; they are left out of
            the training. More are taken for the queries given back, and the answer is refused.
        ledger: Your ledger; null is ledger.jsonl in the folder of your data.
        trainer: Devices to train on.

    Raises:
        UserError: If an argument is wrong, the ledger does not know the query, or every answer is refused.
        RunFailure: If a training diverges.
    """
    _check(seeds, near, copies, answers, expect_digests or {}, encoder)
    check_plotting()
    folder, place = Path(output), resolve_data_path(data)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output is {folder}, which is a file; name a folder.")
    asked = incoming(query, Query)
    book = SharingLedger(place / LEDGER if ledger is None else ledger)
    task = load_task(ckpt_path)
    classes = tuple(task.classes)  # type: ignore[arg-type]
    home = _home(place, book, asked, classes)
    says = getattr(rank_zero_only, "rank", 0) == 0

    accepted: dict[str, Received[Answer]] = {}
    shared: dict[str, Samples | None] = {NOTHING: None}
    refused: dict[str, str] = {}
    for name, path in answers.items():
        try:
            answer = accept(path, asked, (expect_digests or {}).get(name), book)
            shared[name] = without_copies(path, answer.samples, home, near, copies, encoder)
            accepted[name] = answer
        except UserError as error:
            refused[name] = str(error)
            if says:
                print(f"{name} is refused: {error}", flush=True)
    if not accepted:
        raise UserError(f"Every answer is refused; {next(iter(refused.values()))}")

    sets = {"held_out": home.held_out, "queries": home.queries} | ({} if home.test is None else {"test": home.test})
    recipe = TrainingRecipe.from_checkpoint(ckpt_path, **trainer.arguments())
    identity = {**home.hashes, "checkpoint": file_sha256(Path(ckpt_path)), "query": asked.digest}
    trainings = TrainingRuns(folder / "trainings", recipe, home.train, sets, mode, identity)
    done = trainings.run(shared, range(seeds), says)
    if not says:
        return

    found = rank_owners({name: stack(done[name], "held_out") for name in accepted}, stack(done[NOTHING], "held_out"))
    hard = None if home.test is None else torch.isin(home.test.y, home.queries.y.unique())
    rows = []
    for name, trained in done.items():
        samples = shared[name]
        numbered = None if samples is None else samples.renumbered(classes)
        scores = {key: float(stack(trained, key).double().mean()) for key in sets}
        if hard is not None:
            scores["hard_classes"] = float(stack(trained, "test")[:, hard].double().mean())
        rows.append(
            RankingRow(
                name,
                None if name == NOTHING else accepted[name].manifest,
                scores,
                None if numbered is None else relative_residual(task, numbered, home.queries),
                None if numbered is None or encoder is None else mean_psi(encoder, numbered, home.queries),
                sum(one.seconds for one in trained),
            )
        )
    with book.locked():
        for name, answer in accepted.items():
            if book.find("received", answer.digest) is None:
                content = named_fingerprints(answer.samples, answer.manifest.keys)
                notes = {"query": asked.digest}
                book.append(Entry("received", name, answer.digest, asked.manifest.budget, content, notes))
    ranking = Ranking(asked, found, rows, refused, seeds, mode, len(home.held_out))
    write_report(folder, ranking)


def accept(path: str, asked: Received[Query], expect_digest: str | None, book: SharingLedger) -> Received[Answer]:
    """Read an answer and compare it with what was asked for.

    Raises:
        UserError: If it is refused; the message is the reason.
    """
    answer = incoming(path, Answer, expect_digest)
    given, wanted = answer.manifest, asked.manifest
    foreign = sorted(set(given.contents.classes) - set(wanted.contents.classes))
    encoder = given.choice.encoder
    rules = [
        (given.query == asked.digest, "answers another query"),
        (answer.digest not in book.withdrawn(), "was withdrawn by its owner"),
        (not foreign, f"holds samples of {', '.join(foreign)}, which was not asked for"),
        (given.budget <= wanted.budget, f"names a budget of {given.budget}, but {wanted.budget} was asked for"),
        (len(answer.samples) <= given.budget, f"holds {len(answer.samples)} samples, above its budget {given.budget}"),
        (len(set(given.keys)) == len(given.keys), "names a sample twice"),
        (given.keys == answer.samples.keys, "names other samples than it holds"),
        (len(given.weights) == len(given.keys), "has not one weight per sample"),
        (all(weight >= 0 for weight in given.weights), "has a negative weight"),
        (given.disclosed >= len(answer.samples), "says that it discloses less than it holds"),
        (
            (given.contents.input, given.contents.shape) == (wanted.contents.input, wanted.contents.shape),
            "is of another shape",
        ),
        (
            wanted.encoder is None or encoder is None or encoder == wanted.encoder,
            f"was chosen with the encoder {encoder.name if encoder else ''}, but another name or hash was asked for",
        ),
    ]
    for holds, what in rules:
        if not holds:
            raise UserError(f"{path} {what}; ask its owner for another answer.")
    return answer


def without_copies(
    path: str, samples: Samples, home: Home, near: float, copies: int, encoder: Encoder | None
) -> Samples:
    """Return an answer's samples without the few copies of hard cases that may be in it.

    Raises:
        UserError: If there are more, as where an owner gives the queries back, or nothing else.
    """
    hard = merge_samples([_named(home.queries, "q"), _named(home.held_out, "h")])
    copied = exact_echoes(samples, hard)
    exact = int(copied.sum())
    if near:
        copied |= near_echoes(samples, hard, home.train, near, encoder)
    if int(copied.sum()) > copies or bool(copied.all()):
        raise UserError(
            f"{path} gives hard cases back: {exact} of its {len(samples)} samples are exact copies and "
            f"{int(copied.sum()) - exact} near ones, but {copies} may be; ask its owner for another answer."
        )
    return samples.take((~copied).nonzero().squeeze(1))


def _named(samples: Samples, prefix: str) -> Samples:
    return dataclasses.replace(samples, keys=tuple(f"{prefix}{key}" for key in samples.keys), groups=None)


def _check(
    seeds: int,
    near: float,
    copies: int,
    answers: Mapping[str, str],
    digests: Mapping[str, str],
    encoder: Encoder | None,
) -> None:
    if seeds < 2:
        raise UserError(f"seeds is {seeds}, but must be 2 or more; one training has no interval.")
    if not 0 <= near < 1:
        raise UserError(f"near is {near}, but must be from 0 to below 1; 0.25 takes a quarter of the natural distance.")
    if copies < 0:
        raise UserError(f"copies is {copies}, but must be 0 or more; 0 allows none.")
    if not answers or NOTHING in answers:
        raise UserError('answers is empty or misnamed; name the folders by owner, such as \'{"alice": "in/alice"}\'.')
    for name in digests:
        if name not in answers:
            raise UserError(f"expect_digests names {name}, who is not among the answers; correct the name.")


def _home(place: Path, book: SharingLedger, asked: Received[Query], classes: tuple[str, ...]) -> Home:
    sent = book.find("query", asked.digest)
    if sent is None:
        raise UserError(
            f"{book.path} knows no query with the digest {asked.digest}; give the query's own folder and the ledger "
            "that it was recorded in."
        )
    sets = {
        split: LabelledSet(place / split)
        for split in ("train", "val", "test")
        if split != "test" or (place / split).exists()
    }
    loaded = {split: labelled.load().renumbered(classes) for split, labelled in sets.items()}
    number = {key: index for index, key in enumerate(loaded["val"].keys)}
    parts = {}
    for part, keys in (("queries", list(sent.samples)), ("held_out", list(sent.notes["held_out"]))):
        gone = [key for key in keys if key not in number]
        if gone:
            raise UserError(
                f"{place / 'val'} has no sample {gone[0]} any more, which was in the query; restore the data."
            )
        parts[part] = loaded["val"].take([number[key] for key in keys])
    hashes = {split: file_sha256(place / split / "index.json") for split in sets}
    return Home(loaded["train"], parts["queries"], parts["held_out"], loaded.get("test"), hashes)
