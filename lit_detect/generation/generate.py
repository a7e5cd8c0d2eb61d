"""The verb ``generate``: human passages, and a language model's continuations of their beginnings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_core.corpora import Corpus
from lit_core.errors import UserError, check_at_least, checked_first, require
from lit_core.files.paths import atomic_write
from lit_core.lightning.checksums import weights_sha256
from lit_core.lightning.devices import Devices
from lit_core.lm.language_model import LanguageModel
from lit_core.lm.sampling import check_sampling
from lit_core.lm.tokenizer import Tokenizer
from lit_core.progress import progress
from lit_core.record import output_with_record, write_record
from lit_core.screen import say
from lit_core.seeds import part_seed
from lit_core.work import UnfinishedWork
from lit_detect.generation.leak import leak_table
from lit_detect.generation.passages import Passage, cut_words, passages, split_continuation
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record

#: Name of the folder of unfinished work beside an output.
WORK = ".{}.parts"


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    Args:
        name: Name of the setting, such as pure or top_k_40.
        temperature: Divisor of the logits, 0 or more; 0 takes the likeliest token.
        top_k: Number of likeliest tokens to draw from, 1 or more; None allows all.
        top_p: Probability mass of nucleus sampling, above 0 to 1; None allows all tokens.
        repetition_penalty: Factor, above 0, by which tokens that occur in the text become less likely; 1 has no effect.
    """

    name: str
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        check_sampling(1, self.temperature, self.top_k, self.top_p, self.repetition_penalty, seed=0, batch_size=1)


@dataclass(frozen=True)
class Piece:
    """A batch of passages that are continued at once, with one setting.

    Args:
        decoding: How tokens are chosen.
        priming: Number of tokens of a passage that the generator is given.
        passages: The passages.
        first_row: Index of the first text among all generated texts; its random numbers depend on it.
    """

    decoding: Decoding
    priming: int
    passages: Sequence[Passage]
    first_row: int


def _check(
    priming_tokens: Sequence[int],
    train: int,
    val: int,
    test: int,
    words: int,
    max_new_tokens: int,
    seed: int | None,
    batch_size: int,
) -> None:
    _check_different("priming_tokens", list(priming_tokens))
    for number in priming_tokens:
        check_at_least(1, priming_tokens=number)
    check_at_least(0, train=train, val=val, test=test)
    check_at_least(1, words=words, max_new_tokens=max_new_tokens, batch_size=batch_size)
    require(max_new_tokens > words, "max_new_tokens", max_new_tokens, f"more than the {words} words")
    part_seed(seed)
    counts = {"train": train, "val": val, "test": test}
    require(any(counts.values()), "train, val and test", counts, "0 or more, not all 0")


@checked_first(_check)
def generate(
    output: str,
    corpora: list[Corpus],
    language_model: LanguageModel,
    name: str,
    decodings: list[Decoding],
    priming_tokens: list[int],
    train: int = 0,
    val: int = 0,
    test: int = 0,
    words: int = 80,
    max_new_tokens: int = 150,
    tokenizer: str | None = None,
    seed: int | None = None,
    batch_size: int = 64,
    trainer: Devices | None = None,
) -> None:
    """Let a language model continue human passages, and write its continuations next to those of the humans.

    Every text has the same number of words and is cleaned in the same way, so its formatting does not reveal its class.
    At the end the command prints how well the shape of the texts still does. To resume a killed run, give the same
    command again; it writes the same file.

    Args:
        output: JSONL file to be written, one record per line.
        corpora: Corpora of the human passages, by class name; documents are divided by a hash of their names.
        language_model: The generator, such as lit_core.lm.smollm2.
        name: Name of the generator, which its records have as source.
        decodings: The settings of decoding, each with a name.
        priming_tokens: Numbers of tokens of a passage that the generator is given, 1 or more each.
        train: Number of passages of each corpus for training, 0 or more.
        val: Number of passages of each corpus for validation, 0 or more.
        test: Number of passages of each corpus for the test, 0 or more.
        words: Number of words of each text, 1 or more; a continuation that has fewer is left out.
        max_new_tokens: Number of tokens to generate, enough for the words and one more.
        tokenizer: Tokenizer that counts priming tokens, as a path or Hugging Face name; None takes the generator's.
        seed: Seed of the choice of passages and of the sampling, 0 or more; null takes 0.
        batch_size: Number of texts per forward pass; it changes the texts by rounding only.
        trainer: Devices to work on; None takes one.

    Raises:
        UserError: If an argument is out of its range, a corpus has too few passages, or the output exists.
    """
    path, counts = output_with_record(output, WORK), {"train": train, "val": val, "test": test}
    _check(priming_tokens, train, val, test, words, max_new_tokens, seed, batch_size)
    seed = part_seed(seed)
    if path.suffix != ".jsonl":
        raise UserError(f"output is {path}, but must end in .jsonl. Rename it.")
    _check_different("decodings", [decoding.name for decoding in decodings])
    counter = language_model.tokenizer if tokenizer is None else Tokenizer.load(tokenizer)
    chosen = [p for corpus in corpora for p in passages(corpus, counter, counts, priming_tokens, words, seed)]
    pieces = _pieces(chosen, decodings, priming_tokens, batch_size)
    settings = {
        "corpora": [corpus.describe() for corpus in corpora],
        "generator": {"name": name, "sha256": weights_sha256(language_model.module)},
        "decodings": [asdict(decoding) for decoding in decodings],
        "priming_tokens": priming_tokens,
        "counts": counts,
        "words": words,
        "max_new_tokens": max_new_tokens,
        "tokenizer": counter.sha256,
        "seed": seed,
        "batch_size": batch_size,
    }
    fabric = (trainer or Devices()).launch()
    language_model.module.to(fabric.device)
    work = UnfinishedWork(
        path.with_name(WORK.format(path.name)),
        key="piece",
        settings=settings,
        differs=lambda key, former, now: (
            f"{work.folder} was begun with {key} {former}, and now it is {now}; give the former settings, another "
            "output, or remove that folder."
        ),
        busy=f"output is {path}, which another generate is writing; wait for it.",
        journals="*.json",
        rank=fabric.global_rank,
        group=fabric,
        values=("continuations",),
    )
    with work:
        missing = work.missing(range(len(pieces)))
        mine = missing[fabric.global_rank :: fabric.world_size]
        shown = fabric.is_global_zero and bool(mine)
        if shown and work.done:
            say(f"Resuming: {len(work.done)} of {len(pieces)} pieces are done.")
        count = sum(len(pieces[number].passages) for number in missing)
        task = f"{count:,} texts of {max_new_tokens} tokens to generate"
        for number in progress(mine, "generate", "pieces", task, shown):
            continuations = continuations_of(pieces[number], language_model, words, max_new_tokens, seed)
            work.append([{"piece": number, "continuations": continuations}])
        records = work.finish(lambda rows: _write(path, chosen, pieces, rows, settings))
    if records is not None:
        short = sum(len(piece.passages) for piece in pieces) - sum(record.label == MACHINE for record in records)
        say("", f"{len(records):,} records in {path}; {short:,} continuations had fewer than {words + 1} words.")
        say(*leak_table(records).split("\n"))


def _check_different(label: str, values: Sequence[Any]) -> None:
    require(len(values) > 0 and len(set(values)) == len(values), label, values, "one or more, all different")


def _pieces(
    chosen: Sequence[Passage], decodings: Sequence[Decoding], priming_tokens: Sequence[int], batch_size: int
) -> list[Piece]:
    pieces, row = [], 0
    for priming in priming_tokens:
        for decoding in decodings:
            for start in range(0, len(chosen), batch_size):
                batch = chosen[start : start + batch_size]
                pieces.append(Piece(decoding, priming, batch, row))
                row += len(batch)
    return pieces


def continuations_of(
    piece: Piece, language_model: LanguageModel, words: int, max_new_tokens: int, seed: int
) -> list[dict[str, str] | None]:
    """Return the cleaned prefix and continuation of each passage; None if the continuation has too few words.

    Args:
        piece: The passages and the setting.
        language_model: The generator.
        words: Number of words of a continuation.
        max_new_tokens: Number of tokens to generate.
        seed: Seed of the sampling.
    """
    options = {key: value for key, value in asdict(piece.decoding).items() if key != "name"}
    prefixes = [passage.prefix(piece.priming) for passage in piece.passages]
    raw = language_model.generate(
        prefixes,
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=len(prefixes),
        first_row=piece.first_row,
        **options,
    )
    continuations: list[dict[str, str] | None] = []
    for given, text in zip(prefixes, raw, strict=True):
        prefix, continuation = split_continuation(given, text)
        cut = cut_words(continuation, words)
        continuations.append(None if cut is None else {"prefix": prefix, "text": cut})
    return continuations


def _write(
    path: Path,
    chosen: Sequence[Passage],
    pieces: Sequence[Piece],
    rows: Mapping[int, Mapping[str, Any]],
    settings: dict[str, Any],
) -> list[Record]:
    """Write the records of all passages and their continuations, and that of the command; return the former."""
    continuations = [one for number in range(len(pieces)) for one in rows[number]["continuations"]]
    records = list(_records(chosen, pieces, continuations, settings))
    atomic_write(path, "".join(json.dumps(r.to_dict(), ensure_ascii=False) + "\n" for r in records))
    write_record(path)
    return records


def _records(
    chosen: Sequence[Passage],
    pieces: Sequence[Piece],
    continuations: Sequence[dict[str, str] | None],
    settings: dict[str, Any],
) -> Iterator[Record]:
    """Yield the record of each human passage for each priming length, and then those of the machine continuations."""
    corpora = {corpus["name"]: corpus for corpus in settings["corpora"]}
    for priming in settings["priming_tokens"]:
        for passage in chosen:
            yield _record(
                passage,
                priming,
                passage.continuation(priming, settings["words"]),
                passage.prefix(priming),
                "",
                label=HUMAN,
                source=HUMAN_SOURCE,
                decoding={},
                licence=corpora[passage.domain]["licence"],
            )
    pairs = [(piece, passage) for piece in pieces for passage in piece.passages]
    name = settings["generator"]["name"]
    for (piece, passage), row in zip(pairs, continuations, strict=True):
        if row is None:
            continue
        decoding = asdict(piece.decoding) | {
            "priming_tokens": piece.priming,
            "seed": settings["seed"],
            "max_new_tokens": settings["max_new_tokens"],
        }
        yield _record(
            passage,
            piece.priming,
            row["text"],
            row["prefix"],
            f"/{name}/{piece.decoding.name}",
            label=MACHINE,
            source=name,
            decoding=decoding,
            generator_sha256=settings["generator"]["sha256"],
        )


def _record(
    passage: Passage,
    priming: int,
    text: str,
    prefix: str,
    suffix: str,
    label: int,
    source: str,
    decoding: dict[str, Any],
    **meta: Any,
) -> Record:
    return Record(
        id=f"{passage.domain}/{passage.id}/{priming}{suffix}",
        text=text,
        label=label,
        split=passage.split,
        source=source,
        domain=passage.domain,
        pair_id=f"{passage.domain}/{passage.document}",
        decoding=decoding,
        meta={
            "prefix": prefix,
            "priming_tokens": priming,
            "passage": f"{passage.domain}/{passage.id}",
            **meta,
        },
    )


def with_prefix(record: Record) -> str:
    """Return the text of a generated record together with the prefix that it continues."""
    return f"{record.meta['prefix']} {record.text}"
