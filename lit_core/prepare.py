"""The verb ``prepare``: from corpora to token shards that training reads."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from lit_core.corpora import Corpus
from lit_core.corpora.build import CorpusBuild, encode, gather, sample
from lit_core.data.prepared import check_prepared, is_whole
from lit_core.data.shards import ShardSet, splits_of
from lit_core.errors import UserError, check_at_least, checked_first, did_you_mean, refuse_unused, require
from lit_core.files.formats import read_stamped, stamp
from lit_core.files.json_files import plain
from lit_core.files.outputs import output_folder
from lit_core.files.paths import atomic_write, remove_folder, replace_whole, resolve_data_path
from lit_core.files.tables import text_table
from lit_core.files.working_folder import (
    PREPARED,
    RECORD,
    is_prepared,
    read_prepared,
    root_to_prepare,
    workplace,
)
from lit_core.lm.tokenizer import SMALLEST_VOCABULARY, Tokenizer
from lit_core.record import shown
from lit_core.screen import quoted, say
from lit_core.seeds import checked_seed

#: What the root's tokenizer was trained on.
TRAINING = "tokenizer_training.json"

#: Vocabulary where none is asked for.
VOCAB_SIZE = 4096
#: Bytes of text that it is trained on then.
TOKENIZER_BYTES = 16_000_000

Summary = dict[str, dict[str, dict[str, int]]]


def _check(
    vocab_size: int | None,
    tokenizer_bytes: int,
    max_bytes: int | dict[str, int] | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    shard_bytes: int,
    workers: int,
) -> None:
    require(0 <= val_fraction < 1, "val_fraction", val_fraction, "from 0 to below 1")
    require(0 <= test_fraction < 1, "test_fraction", test_fraction, "from 0 to below 1")
    both = val_fraction + test_fraction
    require(both < 1, "val_fraction + test_fraction", both, "below 1, so that something is left to train on")
    checked_seed("seed", seed)
    check_at_least(1, shard_bytes=shard_bytes, workers=workers, tokenizer_bytes=tokenizer_bytes)
    check_at_least(SMALLEST_VOCABULARY, vocab_size=vocab_size)
    if isinstance(max_bytes, dict):
        check_at_least(1, **{f"max_bytes of {name}": limit for name, limit in max_bytes.items()})
    else:
        check_at_least(1, max_bytes=max_bytes)


@checked_first(_check)
def prepare(
    root: str,
    corpora: list[Corpus] | None = None,
    tokenizer: str | None = None,
    vocab_size: int | None = None,
    tokenizer_bytes: int = TOKENIZER_BYTES,
    max_bytes: int | dict[str, int] | None = None,
    val_fraction: float = 0.05,
    test_fraction: float = 0.05,
    seed: int = 0,
    shard_bytes: int = 32_000_000,
    workers: int = 1,
    verify: bool = False,
) -> Summary:
    """Turn corpora into token shards, one folder per corpus with the splits train, val and test.

    To resume a killed run, give the same command again. A source that is finished already is left unchanged. Corpora
    may be added to a root later; they are encoded with its tokenizer. Equal arguments and texts give equal files, for
    any number of workers.

    Args:
        root: Folder of the sources: absolute, from the working directory if it begins with ``./``, or below the data
            root. A folder of that name in the working directory is taken only if prepare wrote it.
        corpora: The corpora, by class name; each becomes a source of its own name.
        tokenizer: Path of a tokenizer.json, a Hugging Face name, or bytes; None takes the root's, or else trains one.
        vocab_size: Tokens of the byte-level BPE to train, 257 or more; None trains 4096.
        tokenizer_bytes: Bytes of training text, in equal parts from all corpora, that a new tokenizer is trained on.
        max_bytes: Maximum bytes of text of each corpus, as one number or by source name; None takes all.
        val_fraction: Fraction of each corpus's bytes for validation, from 0; documents are never divided.
        test_fraction: Fraction of each corpus's bytes for the test, from 0; documents are never divided.
        seed: Seed of the division and order of documents, 0 or more.
        shard_bytes: Bytes of text per shard, roughly; a shard is what one worker writes at a time.
        workers: Number of processes that encode, 1 or more.
        verify: Whether to only compare what is in the root with its recorded hashes.

    Returns:
        Documents, text bytes, tokens and shards by source and split.

    Raises:
        UserError: If an argument or a corpus is wrong, or the root holds something else.
        RunFailure: If the disk is full or a worker dies; no incomplete source is left.
    """
    if verify:
        refuse_unused(prepare, locals(), "verify", "root")
        return _verify(resolve_data_path(root))
    folder = root_to_prepare(root)
    output_folder(folder, "root")
    _check(vocab_size, tokenizer_bytes, max_bytes, val_fraction, test_fraction, seed, shard_bytes, workers)
    if tokenizer is not None and tokenizer_bytes != TOKENIZER_BYTES:
        raise UserError(
            f"tokenizer_bytes is {tokenizer_bytes}, but tokenizer {tokenizer} is not trained; leave out one of them."
        )
    settings = _settings(corpora, max_bytes, val_fraction, test_fraction, seed, shard_bytes)
    with workplace(folder, "*/shards-*/*.json") as work:
        if not work.exists():
            _refuse_foreign_files(folder)
        encoder = _given_tokenizer(folder, tokenizer, vocab_size)
        missing = []
        for corpus in corpora or ():
            there = folder / corpus.name
            if not (is_prepared(there, settings[corpus.name], shown) and is_whole(there)):
                missing.append(corpus)
        if encoder is not None and missing:
            _check_start(folder, encoder, {corpus.name for corpus in missing})
        builds = [gather(corpus, settings[corpus.name], work) for corpus in missing]
        training = None
        if encoder is None:
            size = VOCAB_SIZE if vocab_size is None else vocab_size
            training = {"vocab_size": size, "tokenizer_bytes": tokenizer_bytes, "sources": settings}
            say(f"Training a byte-level BPE of {size} tokens.")
            encoder = Tokenizer.train_bpe(sample(builds, tokenizer_bytes), size)
        if builds:
            encode(builds, encoder, workers)
            _move_in(folder, builds, encoder, training)
    summary = {name: _summary(folder / name) for name in settings}
    _print(summary, reused=set(summary) - {build.corpus.name for build in builds})
    for build in builds:
        if count := build.gathered.duplicates:
            say(f"{count:,} documents of {build.corpus.name} were left out, since they repeat other documents.")
    weights = json.dumps(dict.fromkeys(summary, 1.0))
    place = root if resolve_data_path(root) == folder else folder
    say("", f"In           {folder}")
    say(f"Train on it  lit-moe fit --config CONFIG --data.root {quoted(place)} --data.sources {quoted(weights)}")
    return summary


def _settings(
    corpora: list[Corpus] | None,
    max_bytes: int | dict[str, int] | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    shard_bytes: int,
) -> dict[str, dict[str, Any]]:
    """Return the arguments on which the shards depend by source, after checking the corpora."""
    if not corpora:
        raise UserError("corpora is empty; name at least one, such as `--corpora+=Austen`, or set verify to true.")
    names = [corpus.name for corpus in corpora]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two corpora are named {name}; give each its own `name`.")
        if Path(name).name != name or name.startswith("."):
            raise UserError(f"A corpus is named {name!r}, but its name becomes a folder; use letters, digits, - and _.")
    limits = max_bytes if isinstance(max_bytes, dict) else dict.fromkeys(names, max_bytes)
    for name in limits:
        if name not in names:
            raise UserError(f"max_bytes names {name}, which is not among the corpora.{did_you_mean(name, names)}")
    options = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed, "shard_bytes": shard_bytes}
    settings = {c.name: {"corpus": c.describe(), "max_bytes": limits.get(c.name), **options} for c in corpora}
    return {name: shown(own) for name, own in plain(settings).items()}


def _refuse_foreign_files(root: Path) -> None:
    """Refuse a root in which something else has files that a new tokenizer would replace."""
    for path in (root / "tokenizer_config.json", root / TRAINING):
        if path.exists() and not (root / "tokenizer.json").is_file():
            raise UserError(
                f"{path} is there without the tokenizer.json that prepare writes beside it; choose another root, or "
                "move it."
            )


def _given_tokenizer(root: Path, tokenizer: str | None, vocab_size: int | None) -> Tokenizer | None:
    """Return the tokenizer that was asked for or that the root has; None if one is to be trained."""
    stored = _root_tokenizer(root)
    given = None if tokenizer is None else Tokenizer.load(tokenizer)
    if given is not None and vocab_size is not None:
        raise UserError(f"vocab_size is {vocab_size}, but tokenizer {tokenizer} has its own; leave out one of them.")
    if given is not None and stored is not None and given.sha256 != stored.sha256:
        raise UserError(
            f"tokenizer is {tokenizer}, but {root} was prepared with another one ({stored.sha256[:12]}…); choose "
            "another root, or leave tokenizer out to keep the root's."
        )
    if stored is not None and vocab_size is not None:
        record = root / TRAINING
        trained = stored.vocab_size
        if record.is_file():
            trained = read_stamped(record, PREPARED, _Training, "choose another root")["vocab_size"]
        if trained != vocab_size:
            raise UserError(
                f"vocab_size is {vocab_size}, but the tokenizer of {root} has {trained}; choose another root, or leave "
                "vocab_size out to keep the root's tokenizer."
            )
    return given if given is not None else stored


def _check_start(root: Path, tokenizer: Tokenizer, remade: Collection[str]) -> None:
    """Refuse to add to sources of a former release, whose documents begin with other tokens."""
    for record in sorted(root.glob(f"*/{RECORD}")):
        for split in splits_of(record.parent) if record.parent.name not in remade else ():
            start = (ShardSet(record.parent / split, verify=False).index["tokenizer"] or {}).get("start", [])
            if tuple(start) != tokenizer.start:
                raise UserError(
                    f"The documents in {record.parent / split} begin with the tokens {start}, [] standing for none, "
                    f"but the tokenizer begins a text with {list(tokenizer.start)}; choose a new root for all sources."
                )


def _root_tokenizer(root: Path) -> Tokenizer | None:
    """Return the tokenizer of a root; None if it has no sources and no tokenizer yet.

    Raises:
        UserError: If it is not the one with which the sources were encoded.
    """
    path = root / "tokenizer.json"
    records = [read_prepared(file, f"remove {file.parent} to prepare it again") for file in root.glob(f"*/{RECORD}")]
    encoded = {record["tokenizer"] for record in records if "tokenizer" in record}
    if not encoded:
        return Tokenizer.load(path) if path.is_file() else None
    with suppress(UserError):
        stored = Tokenizer.load(path)
        if encoded == {stored.sha256}:
            return stored
    raise UserError(
        f"The tokenizer of {root} is missing or damaged: it is not that with which the sources were encoded; restore "
        f"tokenizer.json and tokenizer_config.json, or remove {root} to prepare it again."
    )


class _Training(TypedDict):
    """Content of the record of a tokenizer's training, as far as it is read."""

    vocab_size: int


def _move_in(root: Path, builds: Sequence[CorpusBuild], tokenizer: Tokenizer, training: dict[str, Any] | None) -> None:
    """Move finished sources into the root, in which every visible source is complete at any moment."""
    finished = [build.finish(tokenizer) for build in builds]
    if training is not None:
        atomic_write(root / TRAINING, json.dumps({**stamp(PREPARED), **training}, ensure_ascii=False, indent=1) + "\n")
    if not (root / "tokenizer.json").is_file():
        tokenizer.save(root / "tokenizer.json")
    for build, folder in zip(builds, finished, strict=True):
        replace_whole(root / build.corpus.name, folder)
        remove_folder(build.work)


def _verify(root: Path) -> Summary:
    records = sorted(root.glob(f"*/{RECORD}"))
    if not records:
        raise UserError(f"root is {root}, but it was not written by prepare; correct the path.")
    tokenizer = _root_tokenizer(root)
    summary = {}
    for record in records:
        folder = record.parent
        check_prepared(folder)
        for split in splits_of(folder):
            shards = ShardSet(folder / split)
            if tokenizer is None or (shards.index["tokenizer"] or {}).get("sha256") != tokenizer.sha256:
                raise UserError(
                    f"{folder / split} was encoded with another tokenizer than {root / 'tokenizer.json'}; remove "
                    f"{folder} to prepare it again."
                )
        summary[folder.name] = _summary(folder)
    _print(summary, reused=set())
    say("", f"All shards of {root} match their indices.")
    return summary


def _summary(folder: Path) -> dict[str, dict[str, int]]:
    rows = {}
    for split in splits_of(folder):
        index = ShardSet(folder / split).index
        rows[split] = {
            "documents": index["meta"].get("documents", 0),
            "text_bytes": index["text_bytes"],
            "tokens": index["tokens"],
            "shards": len(index["shards"]),
        }
    return rows


def _print(summary: Summary, reused: set[str]) -> None:
    lines = [["source", "split", "documents", "text bytes", "tokens", "bytes/token", "shards"]]
    for name, splits in summary.items():
        for split, row in splits.items():
            counts = [f"{row[key]:,}" for key in ("documents", "text_bytes", "tokens")]
            ratio = f"{row['text_bytes'] / row['tokens']:.2f}"
            unchanged = ["unchanged"] * (name in reused)
            lines.append([name, split, *counts, ratio, f"{row['shards']:,}", *unchanged])
    say("", *text_table(lines))
