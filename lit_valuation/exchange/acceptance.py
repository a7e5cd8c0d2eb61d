"""The trainer's own data for a ranking, and the check of a received answer: is it what the trainer asked for?"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningModule

from lit_core.errors import UserError
from lit_core.files.paths import file_sha256
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.exchange.folder import Received, incoming
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.manifest import Answer, Query, digest
from lit_valuation.samples import NAMED, Samples, merge_samples
from lit_valuation.training.step_loss import fitted_to

#: A key as LitShift writes it; each goes into the trainer's ledger.
_KEY = re.compile("[0-9]{6,9}")


@dataclass(frozen=True)
class TrainerData:
    """The trainer's own data: what a ranking trains on and what it scores.

    Args:
        train: The training set.
        queries: The hard cases that were sent to the owners.
        held_out: The hard cases that the trainer kept.
        other_val: The samples of the validation set that are no hard cases of the query.
        test: The test set; None where there is none.
        hashes: SHA-256 of ``index.json`` by split.
    """

    train: Samples
    queries: Samples
    held_out: Samples
    other_val: Samples
    test: Samples | None
    hashes: Mapping[str, str]

    @property
    def hard_cases(self) -> Samples:
        """All hard cases, sent and held out."""
        return merge_samples([_with_prefix(self.queries, "q"), _with_prefix(self.held_out, "h")])


def load_trainer_data(
    folder: Path, ledger: SharingLedger, received: Received[Query], task: LightningModule
) -> TrainerData:
    """Load the trainer's sets and split its hard cases into sent and held-out ones, as the ledger recorded them.

    Args:
        folder: The trainer's data, with ``train``, ``val`` and perhaps ``test``.
        ledger: The ledger that recorded the query.
        received: The query.
        task: The trainer's model, by whose classes all samples are numbered.

    Raises:
        UserError: If the ledger does not know the query, a hard case is no longer in ``val``, or the model does not
            fit the data.
    """
    entry = ledger.find("query", received.digest)
    if entry is None:
        raise UserError(
            f"{ledger.path} {'knows no' if ledger.path.exists() else 'is not there, but should know a'} query with the "
            f"digest {received.digest}; give the query's own folder and the ledger that recorded it."
        )
    splits = ["train", "val", *(["test"] if (folder / "test").exists() else [])]
    loaded = {split: LabelledSet(folder / split).load() for split in splits}
    loaded["train"] = fitted_to(task, loaded["train"])
    loaded = {split: samples.renumbered(loaded["train"].classes) for split, samples in loaded.items()}
    index_of = {key: index for index, key in enumerate(loaded["val"].keys)}
    hard_cases = {}
    for part, keys in (
        ("queries", list(entry.notes.get("queries", entry.samples))),
        ("held_out", list(entry.notes["held_out"])),
    ):
        missing = [key for key in keys if key not in index_of]
        if missing:
            raise UserError(
                f"{folder / 'val'} no longer has the sample {missing[0]}, which was one of the query's hard cases; "
                "restore the data."
            )
        hard_cases[part] = loaded["val"].take([index_of.pop(key) for key in keys])
    hashes = {split: file_sha256(folder / split / "index.json") for split in splits}
    others = loaded["val"].take(list(index_of.values()))
    queries, held_out = hard_cases["queries"], hard_cases["held_out"]
    return TrainerData(loaded["train"], queries, held_out, others, loaded.get("test"), hashes)


def accept(path: str, query: Received[Query], expect_digest: str | None, ledger: SharingLedger) -> Received[Answer]:
    """Read an answer and check that it is one to this query.

    Args:
        path: Folder of the answer.
        query: The query that was sent.
        expect_digest: The digest that the owner read out, or its first 12 or more digits; None does not compare.
        ledger: The trainer's ledger, which knows withdrawn answers.

    Returns:
        The answer.

    Raises:
        UserError: If the answer is refused; the message is the reason.
    """
    wanted, withdrawn = query.manifest, ledger.withdrawn()

    def check(given: Answer) -> None:
        foreign = sorted(set(given.contents.classes) - set(wanted.contents.classes))
        model, used = wanted.given, given.choice.checkpoint
        encoder, n = given.choice.encoder, given.contents.samples
        rules = [
            (given.query == query.digest, "answers another query"),
            (digest(given) not in withdrawn, "was withdrawn by its owner"),
            (
                given.contents.kind == wanted.contents.kind,
                f"has the target {given.contents.kind}, but {wanted.contents.kind} was asked for",
            ),
            (not foreign, f"holds samples of {', '.join(foreign)}, which was not asked for"),
            (
                given.contents.target is None or len(given.contents.classes) == len(wanted.contents.classes),
                f"does not have all {NAMED[given.contents.kind]} that were asked for",
            ),
            (
                given.contents.vocabulary == wanted.contents.vocabulary,
                f"has the vocabulary {given.contents.vocabulary}, but {wanted.contents.vocabulary} was asked for",
            ),
            (given.budget <= wanted.budget, f"names a budget of {given.budget}, but {wanted.budget} was asked for"),
            (n <= given.budget, f"holds {n} samples, above its budget {given.budget}"),
            (len(set(given.keys)) == len(given.keys), "names a sample twice"),
            (len(given.keys) == n, "names other samples than it holds"),
            (all(map(_KEY.fullmatch, given.keys)), "names a sample by another key than six to nine digits"),
            (len(given.weights) == n, "does not have one weight per sample"),
            (all(weight >= 0 for weight in given.weights), "has a negative weight"),
            (given.disclosed >= n, "claims to disclose less than it holds"),
            (
                (given.contents.input, given.contents.shape) == (wanted.contents.input, wanted.contents.shape),
                "has inputs of another kind or shape than the query",
            ),
            (
                None in (given.contents.encoder, wanted.contents.encoder)
                or given.contents.encoder == wanted.contents.encoder,
                f"holds embeddings by {given.contents.encoder}, but those of the query are by "
                f"{wanted.contents.encoder}",
            ),
            (
                wanted.encoder is None or encoder is None or encoder == wanted.encoder,
                f"was chosen with the encoder {encoder and encoder.name}, but another name or hash was asked for",
            ),
            (
                model is None or used is None or used == model.sha256,
                "was chosen with gradients of another model than the query's",
            ),
            (
                (given.choice.model is None) == (used is None),
                "names a model without its hash, or a hash without a model",
            ),
        ]
        for holds, reason in rules:
            _require(holds, path, reason)

    answer = incoming(path, Answer, expect_digest, check)
    _require(answer.manifest.keys == answer.samples.keys, path, "names other samples than it holds")
    return answer


def _require(holds: bool, path: str, reason: str) -> None:
    if not holds:
        raise UserError(f"{path} {reason}; ask its owner for another answer.")


def _with_prefix(samples: Samples, prefix: str) -> Samples:
    """Return the samples with keys that stay unique when two sets are merged."""
    return dataclasses.replace(samples, keys=tuple(f"{prefix}{key}" for key in samples.keys), groups=None)
