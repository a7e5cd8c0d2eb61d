"""The verb ``query``: the trainer sends some of its hard cases to the owners."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningModule

from lit_core.errors import UserError, check_at_least, checked_first, require
from lit_core.files.outputs import new_folder
from lit_core.files.paths import resolve_data_path
from lit_core.record import new_record
from lit_core.screen import quoted, say
from lit_core.seeds import part_seed
from lit_valuation.data.hard_cases import HardCases, hard_cases, worst_cases
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.data.vocabulary import stored_tokenizer
from lit_valuation.encoders import Encoder, EncoderStamp
from lit_valuation.exchange import limits
from lit_valuation.exchange.folder import anonymized, outgoing
from lit_valuation.exchange.ledger import Entry, named_fingerprints, open_ledger
from lit_valuation.exchange.manifest import Attachment, Contents, Query, digest
from lit_valuation.exchange.probe import PROBE, ProbeOptions, make_probe, spent_privacy
from lit_valuation.exchange.sheet import check_sheet, disclosure, probe_disclosure, write_probe_sheet, write_sheet
from lit_valuation.exchange.trainer_model import MODEL, trainer_model
from lit_valuation.functional.losses import WORST
from lit_valuation.samples import Samples
from lit_valuation.training.loading import Description, load_task
from lit_valuation.training.retrain import case_losses, predict_logits
from lit_valuation.training.step_loss import fitted_to

#: At whose model owners compute gradients.
Gradients = Literal["owner", "trainer", "probe"]


def _check(
    per_class: int,
    worst: float,
    budget: int,
    seed: int | None,
    limit: int | None,
    total_limit: int | None,
) -> None:
    require(0 < worst <= 1, "worst", worst, "above 0 and up to 1")
    check_at_least(1, budget=budget, per_class=per_class, limit=limit, total_limit=total_limit)
    part_seed(seed)


def _changed(options: ProbeOptions) -> str:
    """Return the first option of a probe that is not at its default."""
    usual = asdict(ProbeOptions())
    return next(name for name, value in asdict(options).items() if value != usual[name])


@checked_first(_check, ProbeOptions)
def query(
    ckpt_path: str,
    data: str,
    to: list[str],
    output: str,
    model: Description | None = None,
    per_class: int = 8,
    worst: float = WORST,
    budget: int = 64,
    classes: list[str] | None = None,
    encoder: Encoder | None = None,
    gradients: Gradients = "owner",
    clusters: int = 1,
    fewest: int = 4,
    clip: float | None = None,
    epsilon: float | None = None,
    delta: float = 1e-5,
    seed: int | None = None,
    ledger: str | None = None,
    limit: int | None = None,
    total_limit: int | None = None,
    new_party: bool = False,
    dry_run: bool = False,
) -> None:
    """Write some of a model's hard cases to a folder that you send to data owners; the others are held out.

    Args:
        ckpt_path: Checkpoint of your ``lit-valuation fit``, or of a LightningModule of your own.
        data: Folder of your own data, with the labelled shard sets train and val. The hard cases are mistakes on val,
            or, where targets are not classes, the samples of val with the largest losses.
        to: Names by which your ledger knows the owners that you will send the query to.
        output: Folder to be written and sent.
        model: Import path of a LightningModule of your own whose checkpoint it is, or its class_path and init_args as a
            mapping or a YAML file; arguments that you leave out are the checkpoint's hyperparameters. Null for a
            checkpoint of ``lit-valuation fit``.
        per_class: Most hard cases of a class to send, or of all where targets are not classes, 1 or more; half of its
            mistakes, rounded down, are held out.
        worst: Share of val that is hard where targets are not classes, by the largest losses, above 0 and up to 1.
        budget: Most samples that an owner's answer may hold, 1 or more.
        classes: Names of the classes to ask for; null takes every class with a mistake.
        encoder: Encoder that owners must use if their selector uses one; null lets each owner decide.
        gradients: At whose model owners compute gradients: at one of their own (owner); at yours, which is then sent as
            well (trainer); or at a linear head on the encoder's features of your train, which is sent with sums of the
            hard cases' gradients in place of the cases (probe).
        clusters: Of a probe: most sums of a class, each over hard cases with similar gradients, 1 or more.
        fewest: Of a probe: fewest hard cases of a sum, 2 or more; classes with fewer are left out.
        clip: Of a probe: largest norm of a hard case's gradient, above 0; longer ones are scaled to it. Null scales
            none.
        epsilon: Of a probe: ε of Gaussian noise in the sums, above 0, which needs clip; null adds none. Replacing a
            hard case by another of its class changes the probability of no outcome by more than a factor e^ε, and δ.
        delta: Of a probe: δ of that noise, above 0 and below 1.
        seed: Seed of the draw of hard cases, 0 or more; null takes 0.
        ledger: Your ledger; null is ledger.jsonl in the folder of your data.
        limit: Most different samples of yours that each of these owners may ever be given, all queries together, 1 or
            more; null is no limit.
        total_limit: Most different samples of yours that all owners together may ever be given, 1 or more; null takes
            the one that you gave last, if any.
        new_party: Whether a name in --to may be new to your ledger; the first command of a ledger needs no such word.
        dry_run: Whether to only write a contact sheet of what would be sent, OUTPUT.png, or for tables and
            texts OUTPUT.csv.

    Raises:
        UserError: If an argument is wrong, or the model makes no mistakes.
    """
    home = resolve_data_path(data)
    book = open_ledger(home, ledger)  # which may complete the output of a killed command
    folder = new_folder(output)
    if dry_run:
        check_sheet(folder)
    _check(per_class, worst, budget, seed, limit, total_limit)
    options = ProbeOptions(clusters, fewest, clip, epsilon, delta)
    if gradients == "probe" and encoder is None:
        raise UserError("gradients is probe, but there is no encoder for its features; give --encoder.")
    if gradients != "probe" and options != ProbeOptions():
        raise UserError(f"gradients is {gradients}, but {_changed(options)} is for probes; leave it out.")
    seed = part_seed(seed)
    if classes == []:
        raise UserError("classes is empty; name the classes to ask for, or leave it out for all with a mistake.")
    if not to:
        raise UserError("to is empty; name the owners that the query goes to, such as `--to+=alice`.")
    to = book.recorded_names(to, "to", new_party)
    task = load_task(ckpt_path, model)
    validation = LabelledSet(home / "val")
    samples = fitted_to(task, validation.load())
    cases = _find(task, samples, home / "val", per_class, worst, seed, classes)
    columns = validation.meta.get("columns")
    made = sent_model = None
    if gradients == "probe":
        assert encoder is not None
        if samples.target != "class":
            raise UserError(
                f"gradients is probe, but the samples of {home / 'val'} have {samples.target}, and the head of a probe "
                "classifies; take owner or trainer."
            )
        train = LabelledSet(home / "train").load().renumbered(samples.classes)
        made = make_probe(train, cases, encoder, options)
        cases = made.cases
    elif gradients == "trainer":
        sent_model = trainer_model(ckpt_path, model)
    told = disclosure(cases.queries, task if sent_model else None) if made is None else probe_disclosure(made, options)
    for line in told:
        say(line)
    if dry_run:
        if made is None:
            sheet = write_sheet(folder, cases.queries, columns, stored_tokenizer(home, validation.vocabulary))
        else:
            sheet = write_probe_sheet(folder, made, options.deviation)
        say(f"Nothing was sent. Look at {sheet}")
        return

    stamp = None if encoder is None else EncoderStamp.of(encoder)
    names = None if columns is None else tuple(columns)
    file = None if sent_model is None else Attachment.of(MODEL, sent_model)

    def describe(contents: Contents | None) -> Query:
        if contents is None:
            contents = Contents(validation.kind, validation.shape, cases.queries.counts(), "", ())
        contents = replace(contents, encoder=validation.encoder)
        return Query(contents, names, budget, stamp, file, None if made is None else made.manifest)

    licence, keys = validation.shards.index["licence"], list(cases.queries.keys)
    sent = named_fingerprints(cases.queries, keys) if made is None else {}
    notes = {"held_out": list(cases.held_out.keys), "per_class": per_class, "seed": seed, "record": new_record()}
    notes |= {} if gradients == "owner" else {"gradients": gradients}
    notes |= {} if file is None else {"model": file.sha256}
    notes |= {} if made is None else {"queries": keys, **made.notes}
    attached = {MODEL: sent_model} if sent_model else {PROBE: made.content} if made else {}
    queries = anonymized(cases.queries) if made is None else None
    vocabulary = validation.vocabulary
    sending = outgoing(folder, queries, validation.kind, licence, describe, book.staged, attached, vocabulary)
    with book.locked(), sending as manifest:
        most = limits.total_limit(book, total_limit)
        for party, of_party in [*((name, limit) for name in to), (None, most)]:  # before the first line
            limits.check_limit(book, party, of_party, sent.values(), "per_class")
        notes |= {} if most is None else {"total_limit": most}
        book.append(*(Entry("query", name, digest(manifest), budget, sent, notes) for name in to))
    if made is not None and epsilon is not None:
        say(
            "All probes with noise that your ledger has recorded have ε = {:g} and δ = {:g}.".format(
                *spent_privacy(book)
            )
        )
    what = "samples" if made is None else f"hard cases in {len(made.manifest.targets)} sums"
    say("", f"To be sent   {folder}  ({len(cases.queries)} {what}; to {', '.join(to)})")
    say(f"Read it out  {digest(manifest)}")
    say(f"Recorded in  {book.path}")
    say(f"Their turn   lit-valuation select --query {quoted(folder.name)} --expect_digest {digest(manifest)[:16]} …")


def _find(
    task: LightningModule,
    samples: Samples,
    folder: Path,
    per_class: int,
    worst: float,
    seed: int,
    classes: list[str] | None,
) -> HardCases:
    """Return the hard cases of a validation split, and say how many there are."""
    if samples.target == "class":
        if worst != WORST:
            raise UserError(
                f"worst is {worst}, but the samples of {folder} have classes, and all mistakes are hard; leave it out."
            )
        say(f"Classifying {len(samples)} samples of {folder}.")
        predicted = predict_logits(task, samples).argmax(1)
        cases = hard_cases(samples, predicted, per_class, seed, classes)
        found, among = f"{int((predicted != samples.y).sum())} mistakes", f", in {len(cases.classes)} classes"
    elif classes is not None:
        raise UserError(
            f"classes is {', '.join(classes)}, but the samples of {folder} have {samples.target}, for which all are "
            "asked; leave it out."
        )
    else:
        say(f"Predicting {len(samples)} samples of {folder}.")
        losses = case_losses(task, samples)
        cases = worst_cases(samples, losses, per_class, worst, seed)
        n_hard = len(cases.queries) + len(cases.held_out)
        found, among = f"{n_hard} samples with a loss of {losses.topk(n_hard).values.min():.4g} or more", ""
    say(f"{found}: {len(cases.queries)} are to be sent{among}; {len(cases.held_out)} are held out.")
    return cases
