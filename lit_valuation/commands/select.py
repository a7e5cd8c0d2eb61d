"""The verb ``select``: an owner answers a query with the samples that help most, within budget and limit."""

from __future__ import annotations

import json
from dataclasses import replace

import torch

from lit_core.errors import RunFailure, UserError, check_at_least, checked_first
from lit_core.files.outputs import new_folder
from lit_core.files.paths import resolve_data_path
from lit_core.lightning.devices import Devices
from lit_core.record import new_record
from lit_core.screen import quoted, say
from lit_core.seeds import part_seed
from lit_valuation.data.copies import check_near
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.data.vocabulary import stored_tokenizer
from lit_valuation.encoders import Encoder
from lit_valuation.exchange import limits
from lit_valuation.exchange.answering import (
    check_budget,
    check_encoder,
    check_inputs,
    check_selector,
    describe_choice,
    find_checkpoint,
    make_pool,
    note_encoder,
    probe_pools,
    shareable_samples,
)
from lit_valuation.exchange.folder import anonymized, incoming, outgoing
from lit_valuation.exchange.ledger import Entry, named_fingerprints, open_ledger
from lit_valuation.exchange.manifest import Answer, Contents, Query, digest
from lit_valuation.exchange.probe import load_probe
from lit_valuation.exchange.query_copies import QueryCopies, find_copies
from lit_valuation.exchange.sheet import check_sheet, write_sheet
from lit_valuation.exchange.trainer_model import load_trainer_model
from lit_valuation.selectors import Selection, Selector
from lit_valuation.training.loading import Description, load_task
from lit_valuation.training.step_loss import fitted_to


def _check(limit: int, budget: int | None, seed: int | None, total_limit: int | None, near: float) -> None:
    check_at_least(1, limit=limit, budget=budget, total_limit=total_limit)
    check_near(near)
    part_seed(seed)


@checked_first(_check)
def select(
    query: str,
    data: str,
    to: str,
    output: str,
    selector: Selector,
    limit: int,
    ckpt_path: str | None = None,
    model: Description | None = None,
    encoder: Encoder | None = None,
    budget: int | None = None,
    withhold: list[str] | None = None,
    near: float = 0.25,
    expect_digest: str | None = None,
    seed: int | None = None,
    ledger: str | None = None,
    total_limit: int | None = None,
    new_party: bool = False,
    dry_run: bool = False,
    trainer: Devices = Devices(),  # noqa: B008
) -> None:
    """Choose the few of your own samples that answer a trainer's query best, and write them to a folder to be sent.

    Args:
        query: Folder that the trainer sent.
        data: Folder of your own data, with the labelled shard set train.
        to: Name by which your ledger knows the trainer, in any spelling.
        output: Folder to be written and sent.
        selector: How to choose, by class name, such as FeatureSimilaritySelector.
        limit: Most different samples of yours that this trainer may ever be given, all answers together, 1 or more.
        ckpt_path: Checkpoint of your own ``lit-valuation fit``, or of a LightningModule of your own, for selectors that
            use gradients; of a run folder the earliest checkpoint is taken, as in the paper. None is needed if the
            query holds the trainer's model.
        model: Import path of a LightningModule of your own whose checkpoint it is, or its class_path and init_args as a
            mapping or a YAML file; arguments that you leave out are the checkpoint's hyperparameters. Null for a
            checkpoint of ``lit-valuation fit``.
        encoder: Encoder for selectors that use features, by class name; if the query names one, it must be that one.
        budget: Most samples to share now, 1 or more; null takes the query's budget.
        withhold: Names of your samples that must not be shared, as a dry run shows them.
        near: Fraction of the natural distance between different samples of yours, from 0 to below 1, within which one
            counts as a copy of a query; 0 finds exact copies only. Copies are left out, since the trainer has them.
        expect_digest: The digest that the trainer read out to you, or its first 12 or more digits.
        seed: Seed of the selector, 0 or more; null takes 0.
        ledger: Your ledger; null is ledger.jsonl in the folder of your data.
        total_limit: Most different samples of yours that all trainers together may ever be given, 1 or more; null takes
            the one that you gave last, if any.
        new_party: Whether the name in --to may be new to your ledger; the first command of a ledger needs no such word.
        dry_run: Whether to only write a contact sheet of what would be sent, OUTPUT.png, or for tables and
            texts OUTPUT.csv.
        trainer: Devices to compute features and gradients on.

    Raises:
        UserError: If the query is not as its trainer wrote it, an argument is wrong, you have none of the classes, or
            the limit would be exceeded.
    """
    home = resolve_data_path(data)
    book = open_ledger(home, ledger)  # which may complete the output of a killed command
    folder = new_folder(output)
    if dry_run:
        check_sheet(folder)
    _check(limit, budget, seed, total_limit, near)
    seed = part_seed(seed)
    owned = LabelledSet(home / "train")
    received = incoming(query, Query, expect_digest, lambda manifest: check_inputs(owned, manifest))
    (to,) = book.recorded_names([to], "to", new_party)
    askers = book.answered(received.digest) - {to}
    budget = check_budget(budget, received.manifest, limit)
    stamp = check_encoder(selector, encoder, received.manifest)
    check_selector(selector, received.manifest)
    checkpoint = find_checkpoint(selector, ckpt_path, received, model)
    samples = shareable_samples(owned, received.manifest, withhold or [])
    probe = None if received.manifest.probe is None else load_probe(received)
    if checkpoint is None or probe is not None:
        task = None
    else:
        task = load_trainer_model(received) if received.manifest.model else load_task(checkpoint, model)
    samples = samples if task is None else fitted_to(task, samples)
    if received.manifest.probe is not None:
        samples = samples.renumbered(received.manifest.probe.classes)
    classes = samples.classes

    fabric = trainer.launch()
    if fabric.is_global_zero:
        if note := note_encoder(owned, received.manifest):
            say(note, error=True)
        if askers:
            say(f"You answered this very query for {', '.join(sorted(askers))} before: make sure that {to} asks it.")
        missing = sorted(set(received.manifest.contents.classes) - samples.counts().keys())
        say(
            f"Looking at {len(samples)} samples"
            + (" of the classes asked for" if samples.target == "class" else "")
            + (f" (you have none of {', '.join(missing)})" if missing else "")
            + "."
        )
    if probe is None:
        known = [name for name in received.samples.classes if name in classes]
        queries = received.samples.of_classes(known).renumbered(classes)
        pool, query_pool = (make_pool(part, selector, encoder, task, fabric) for part in (samples, queries))
        copies = find_copies(samples, received.samples, near, None if pool.features is None else encoder, pool.features)
    else:  # which has no queries that could be copied
        pool, query_pool = probe_pools(samples, selector, encoder, probe, fabric)
        copies = QueryCopies(torch.arange(len(samples)), 0, 0)
    if fabric.is_global_zero and copies.note:
        say(copies.note)
    samples, pool = samples.take(copies.others), pool.take(copies.others)
    selection = selector.select(pool, query_pool, budget, seed)
    if not fabric.is_global_zero:
        return
    _check_selection(selector, selection, budget)
    shared = samples.take(selection.indices)
    if shared.target == "tags":  # a model of the owner's may know more
        shared = shared.renumbered(list(received.manifest.contents.classes))
    if dry_run:
        tokenizer = stored_tokenizer(home, owned.vocabulary)
        say(f"Nothing was sent. Look at {write_sheet(folder, shared, owned.meta.get('columns'), tokenizer)}")
        return

    with book.locked():
        fingerprints = named_fingerprints(shared, shared.keys)
        most = limits.total_limit(book, total_limit)
        total = limits.check_limit(book, to, limit, fingerprints.values(), "budget")
        of_all = limits.check_limit(book, None, most, fingerprints.values(), "budget")

        def describe(contents: Contents) -> Answer:
            keys = tuple(f"{index:06d}" for index in range(len(shared)))
            weights = tuple(float(weight) for weight in selection.weights)
            choice = describe_choice(
                selector, stamp, task, checkpoint, selection, probe is not None and checkpoint is not None
            )
            contents = replace(contents, encoder=owned.encoder)
            return Answer(received.digest, contents, budget, keys, weights, total, choice)

        licence = owned.shards.index["licence"]
        sent, vocabulary = anonymized(shared), owned.vocabulary
        with outgoing(folder, sent, owned.kind, licence, describe, book.staged, vocabulary=vocabulary) as manifest:
            notes = {"query": received.digest, "withheld": withhold or [], "limit": limit, "record": new_record()}
            notes |= {} if most is None else {"total_limit": most}
            notes |= {"left_out": {"equal": copies.equal, "near": copies.near}} if copies.note else {}
            book.append(Entry("answer", to, digest(manifest), budget, fingerprints, notes))
    for name, value in selection.facts.items():
        say(f"{name.replace('_', ' '):<22}{value:.4f}")
    say("", f"To be sent   {folder}  ({len(shared)} samples; {to} then has {total} of your samples, limit {limit})")
    say(f"All parties  {of_all} of your samples, {'no limit' if most is None else f'limit {most}'}")
    say(f"Read it out  {digest(manifest)}")
    say(f"Recorded in  {book.path}")
    say(f"Their turn   lit-valuation rank --answers {quoted(json.dumps({'NAME': folder.name}, ensure_ascii=False))} …")


def _check_selection(selector: Selector, selection: Selection, budget: int) -> None:
    name, indices = type(selector).__name__, selection.indices.tolist()
    if not indices:
        raise UserError(
            f"{name} finds no sample of yours worth sharing, so nothing is written; try another selector or model."
        )
    if len(indices) > budget or len(set(indices)) < len(indices):  # a fault of the selector's author
        raise RunFailure(
            f"{name} chose {len(indices)} samples, {len(set(indices))} of them different, but the budget is {budget}; "
            "nothing is written."
        )
