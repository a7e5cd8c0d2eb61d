"""The verb ``select``: an owner answers a query with the samples that help most, within budget and limit."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.pytorch import LightningModule

from lit_core.errors import RunFailure, UserError
from lit_core.files.paths import resolve_data_path
from lit_core.lightning.devices import Devices, gather_shares, share
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.encoders import Encoder, embed
from lit_valuation.exchange.folder import Received, anonymized, check_new, incoming, outgoing
from lit_valuation.exchange.ledger import LEDGER, Entry, SharingLedger, fingerprints
from lit_valuation.exchange.manifest import Answer, Choice, Contents, EncoderStamp, Plain, Query, digest, public_name
from lit_valuation.exchange.sheet import write_sheet
from lit_valuation.functional.gradients import LastLayerGradients
from lit_valuation.last_layer import gather_gradients
from lit_valuation.samples import Samples
from lit_valuation.selectors import Pool, Selection, Selector
from lit_valuation.training.retrain import load_task


def select(
    query: str,
    data: str,
    to: str,
    output: str,
    selector: Selector,
    limit: int,
    ckpt_path: str | None = None,
    encoder: Encoder | None = None,
    budget: int | None = None,
    withhold: list[str] | None = None,
    expect_digest: str | None = None,
    seed: int = 0,
    ledger: str | None = None,
    dry_run: bool = False,
    trainer: Devices = Devices(),  # noqa: B008
) -> None:
    """Choose the few of your own samples that answer a trainer's query, and write them to be sent.

    Args:
        query: Folder that the trainer sent.
        data: Folder of your own data, with the labelled shard set train.
        to: Name by which your ledger knows the trainer.
        output: Folder to be written and sent.
        selector: How to choose, by class name, such as FeatureSimilaritySelector.
        limit: Most different samples of yours that this trainer may ever be given, all answers together, 1 or more.
        ckpt_path: Checkpoint of your own ``lit-valuation fit``, for selectors that look at gradients, or its run
            folder, of which the earliest checkpoint is taken, as in the paper.
        encoder: Encoder for selectors that look at features, by class name; where the query names one, that one.
        budget: Most samples to share now, 1 or more; null is what the query asks for.
        withhold: Names of your samples that are not to be shared, as a dry run shows them.
        expect_digest: The digest that the trainer read out to you, or its first 12 or more digits.
        seed: Seed of the selector, 0 or more.
        ledger: Your ledger; null is ledger.jsonl in the folder of your data.
        dry_run: Whether to only draw a contact sheet of what would leave, OUTPUT.png, or for tables OUTPUT.csv.
        trainer: Devices to work on.

    Raises:
        UserError: If the query is not as its trainer wrote it, an argument is wrong, you have none of the classes, or
            the limit would be passed.
    """
    folder, home = check_new(output), resolve_data_path(data)
    asked = incoming(query, Query, expect_digest)
    budget = _budget(budget, asked.manifest, limit)
    source = LabelledSet(home / "train")
    _check_inputs(source, asked)
    stamp = _stamp(selector, encoder, asked.manifest)
    checkpoint = _checkpoint(selector, ckpt_path)
    own = _own_samples(source, asked.manifest, withhold or [])
    task = None if checkpoint is None else load_task(checkpoint)
    names = own.classes if task is None else tuple(task.classes)  # type: ignore[arg-type]
    own, hard = own.renumbered(names), _of_known_classes(asked.samples, names)

    fabric = trainer.launch()
    if fabric.is_global_zero:
        missing = sorted(set(asked.manifest.contents.classes) - {names[c] for c in own.y.unique().tolist()})
        print(
            f"Looking at {len(own)} samples of the classes asked for"
            + (f" (you have none of {', '.join(missing)})" if missing else "")
            + f"; a pass over them takes seconds to minutes on {fabric.world_size} process(es).",
            flush=True,
        )
    pool = _pool(own, selector, encoder, task, fabric)
    chosen = selector.select(pool, _pool(hard, selector, encoder, task, fabric), budget, seed)
    if not fabric.is_global_zero:
        return
    if not len(chosen.indices):
        raise UserError(f"{type(selector).__name__} finds no sample of yours worth sharing; nothing is written.")
    numbers = chosen.indices.tolist()
    if len(numbers) > budget or len(set(numbers)) < len(numbers):  # whoever wrote the selector
        raise RunFailure(
            f"{type(selector).__name__} chose {len(numbers)} samples, {len(set(numbers))} of them different, but the "
            f"budget is {budget}; nothing is written."
        )
    shared = own.take(numbers)
    if dry_run:
        print(f"Nothing left. Look at {write_sheet(folder, shared, shared.keys, source.meta.get('columns'))}")
        return
    book = SharingLedger(home / LEDGER if ledger is None else ledger)
    with book.locked():
        content = dict(zip(shared.keys, fingerprints(shared), strict=True))
        given = book.disclosed(to)
        total = len(given | set(content.values()))
        if total > limit:
            raise UserError(
                f"limit is {limit}, but {to} has been given {len(given)} of your samples and would then have {total}; "
                f"set budget to {max(limit - len(given), 0)} or less, or raise the limit."
            )

        def describe(contents: Contents) -> Answer:
            keys = tuple(f"{number:06d}" for number in range(len(shared)))
            weights = tuple(float(weight) for weight in chosen.weights)
            choice = _choice(selector, stamp, task, checkpoint, chosen)
            return Answer(asked.digest, contents, budget, keys, weights, total, choice)

        licence = source.shards.index["licence"]
        with outgoing(folder, anonymized(shared), source.kind, licence, describe) as manifest:
            notes = {"query": asked.digest, "withheld": withhold or [], "limit": limit}
            book.append(Entry("answer", to, digest(manifest), budget, content, notes))
    for name, value in chosen.facts.items():
        print(f"{name.replace('_', ' '):<22}{value:.4f}")
    print(f"\nTo be sent   {folder}  ({len(shared)} samples; {to} then has {total} of your samples, limit {limit})")
    print(f"Read it out  {digest(manifest)}")
    print(f"Recorded in  {book.path}")
    print(f'Their turn   lit-valuation rank --answers \'{{"NAME": "{folder.name}"}}\' …')


def _budget(budget: int | None, manifest: Query, limit: int) -> int:
    if limit < 1:
        raise UserError(f"limit is {limit}, but must be 1 or more; it is what this trainer may ever be given.")
    budget = min(manifest.budget, limit) if budget is None else budget
    if not 1 <= budget <= manifest.budget:
        raise UserError(f"budget is {budget}, but the query allows 1 to {manifest.budget}; set it so.")
    return budget


def _check_inputs(source: LabelledSet, asked: Received[Query]) -> None:
    contents, columns = asked.manifest.contents, asked.manifest.columns
    mine = (source.kind, source.shape)
    if mine != (contents.input, contents.shape):
        raise UserError(
            f"The query asks for inputs {contents.input} {contents.shape}, but {source.folder} holds {mine[0]} "
            f"{mine[1]}; prepare your data in that shape."
        )
    own_columns = source.meta.get("columns")
    if columns is not None and own_columns is not None and list(columns) != list(own_columns):
        raise UserError(
            f"The query asks for the columns {', '.join(columns)}, but {source.folder} has {', '.join(own_columns)}; "
            "prepare your table with the same columns in the same order."
        )


def _stamp(selector: Selector, encoder: Encoder | None, manifest: Query) -> EncoderStamp | None:
    """Return the encoder's name and hash; refuse another than the one that is asked for."""
    if "features" not in selector.needs:
        return None
    wanted = manifest.encoder
    if encoder is None:
        which = "EfficientNetLite0 or another" if wanted is None else wanted.name
        raise UserError(
            f"{type(selector).__name__} looks at features, but there is no encoder; give --encoder {which}."
        )
    stamp = EncoderStamp(public_name(encoder.name), encoder.sha256)
    if wanted is not None and stamp != wanted:
        raise UserError(
            f"encoder is {stamp.name} ({(stamp.sha256 or 'no weights')[:12]}), but the query asks for {wanted.name} "
            f"({(wanted.sha256 or 'no weights')[:12]}); use that one."
        )
    return stamp


def _checkpoint(selector: Selector, ckpt_path: str | None) -> Path | None:
    """Return the checkpoint file; of a run folder the earliest one."""
    if "gradients" not in selector.needs:
        return None
    if ckpt_path is None:
        raise UserError(
            f"{type(selector).__name__} looks at gradients; give --ckpt_path of your own lit-valuation fit."
        )
    path = Path(ckpt_path)
    if not path.is_dir():
        return path
    found = {int(match[1]): file for file in path.rglob("*.ckpt") if (match := re.search(r"step=(\d+)", file.name))}
    steps = [step for step in found if step > 0]
    if not steps:
        raise UserError(
            f"--ckpt_path is {path}, which has no checkpoint named step=<n>.ckpt; give a .ckpt file, or train with "
            "RunCheckpoint and its every_n_train_steps and save_top_k -1."
        )
    return found[min(steps)]


def _own_samples(source: LabelledSet, manifest: Query, withhold: list[str]) -> Samples:
    samples = source.load()
    unknown = sorted(set(withhold) - set(samples.keys))
    if unknown:
        raise UserError(f"withhold names {unknown[0]}, which is no sample of {source.folder}; correct it.")
    wanted = [name for name in samples.classes if name in manifest.contents.classes]
    present = {samples.classes[number] for number in samples.y.unique().tolist()}
    if not present & set(wanted):
        raise UserError(
            f"{source.folder} has no sample of the classes asked for ({', '.join(manifest.contents.classes)}), so "
            "there is nothing to share."
        )
    samples = samples.of_classes(wanted)
    kept = [number for number, key in enumerate(samples.keys) if key not in set(withhold)]
    if not kept:
        raise UserError("withhold names all samples of the classes asked for, so there is nothing to share.")
    return samples.take(kept)


def _of_known_classes(queries: Samples, names: tuple[str, ...]) -> Samples:
    return queries.of_classes([name for name in queries.classes if name in names]).renumbered(names)


def _pool(
    samples: Samples, selector: Selector, encoder: Encoder | None, task: LightningModule | None, fabric: Fabric
) -> Pool:
    """Compute what the selector looks at, each rank a share of it."""
    n = len(samples)
    mine = samples.take(share(n, fabric.global_rank, fabric.world_size))
    features = gradients = None
    if "features" in selector.needs:
        assert encoder is not None
        width = embed(encoder, samples.x[:1]).shape[1]
        part = embed(encoder, mine.x) if len(mine) else torch.empty(0, width)
        features = gather_shares(fabric, part, n)
    if "gradients" in selector.needs:
        assert task is not None
        task.to(fabric.device)
        numbers = range(n) if not len(mine) else share(n, fabric.global_rank, fabric.world_size)
        blocks = [list(numbers[start : start + 256]) for start in range(0, len(numbers), 256)]
        batches = ((samples.x[block], samples.y[block]) for block in blocks)
        smoothing = float(getattr(task, "label_smoothing", 0.0))
        found = gather_gradients(task, batches, label_smoothing=smoothing).gradients.take(range(len(mine)))
        delta, hidden = (gather_shares(fabric, factor, n) for factor in (found.delta, found.hidden))
        gradients = LastLayerGradients(delta, hidden, found.bias)
    return Pool(samples.y, samples.x.flatten(1).float() if "x" in selector.needs else None, features, gradients)


def _choice(
    selector: Selector,
    stamp: EncoderStamp | None,
    task: LightningModule | None,
    checkpoint: Path | None,
    chosen: Selection,
) -> Choice:
    kind = type(selector)
    return Choice(
        selector=f"{kind.__module__}.{kind.__qualname__}",
        settings={key: _plain(value) for key, value in vars(selector).items() if not key.startswith("_")},
        encoder=stamp,
        model=None if task is None else _network_name(task),
        checkpoint=None if checkpoint is None else hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        facts={name: float(value) for name, value in chosen.facts.items()},
    )


def _network_name(task: Any) -> str:
    kind = type(getattr(task, "network", task))
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: Any) -> Plain:
    if isinstance(value, str):
        return public_name(value)
    return value if value is None or isinstance(value, bool | int | float) else type(value).__name__
