"""The verb ``prepare``: turns files of texts into the text shards that training reads."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lit_core import __version__
from lit_core.data.prepared import check_prepared, index_hashes, is_whole
from lit_core.data.shards import splits_of
from lit_core.errors import RunFailure, UserError, check_at_least, check_shares, checked_first, refuse_unused, require
from lit_core.files.bad_rows import SET_ASIDE, BadRows, OnError
from lit_core.files.formats import stamp
from lit_core.files.json_files import plain
from lit_core.files.outputs import output_folder
from lit_core.files.paths import atomic_write, remove_folder, replace_whole
from lit_core.files.tables import text_table
from lit_core.files.working_folder import PREPARED, RECORD, is_prepared, root_to_prepare, workplace
from lit_core.record import shown, versions
from lit_core.screen import progress_bar, quoted, say
from lit_core.seeds import checked_seed
from lit_detect.data.splitting import Survey
from lit_detect.data.text_shards import TextSet, TextWriter
from lit_detect.formats import TextSource
from lit_detect.formats.base import checked_name
from lit_detect.records import HUMAN, SPLITS, Record

#: Human and machine texts and their median length in characters, by source and split.
Summary = dict[str, dict[str, dict[str, float]]]


def _check(val_fraction: float, test_fraction: float, seed: int, shard_size: int) -> None:
    check_shares(val_fraction=val_fraction, test_fraction=test_fraction)
    both = val_fraction + test_fraction
    require(both <= 1, "val_fraction + test_fraction", both, "at most 1")
    checked_seed("seed", seed)
    check_at_least(1, shard_size=shard_size)


@checked_first(_check)
def prepare(
    root: str,
    sources: list[TextSource] | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    keep_splits: bool = True,
    seed: int = 0,
    shard_size: int = 2000,
    on_error: OnError = "stop",
    verify: bool = False,
) -> Summary:
    """Turn files of texts into shards, one folder per source with the splits train, val and test.

    The splits that a source gives are kept. A source without splits is divided. If a source gives a training set but no
    validation set, the validation set is drawn from its training set. Texts of one pair, and equal texts, stay in one
    split. Repeated texts are left out and counted. Each split must have human and machine texts. Sources can be added
    to a root later. A source is written as a whole or not at all, and equal arguments give equal files.

    Args:
        root: Folder of the sources: absolute, from the working directory if it begins with ``./``, or below the data
            root. A folder of that name in the working directory is taken only if prepare wrote it.
        sources: The sources, by class name. The folder of a source has the name of the source.
        val_fraction: Fraction of the pairs for validation, from 0 to 1.
        test_fraction: Fraction of the pairs for the test, from 0 to 1.
        keep_splits: Whether the splits that a source gives are kept; false divides every source.
        seed: Seed of the division, 0 or more.
        shard_size: Largest number of texts per shard, 1 or more; shards of long texts have fewer.
        on_error: What a bad row does: stop ends the command, skip lists it with its reason in ``set_aside.csv`` in the
            folder of the source, and the others are prepared.
        verify: Whether to write nothing and only compare the files in the root with their recorded hashes.

    Returns:
        Human texts, machine texts and their median number of characters, by source and split.

    Raises:
        UserError: If an argument or a source is wrong, or the root was prepared with other settings.
        RunFailure: If the disk is full.
    """
    folder = root_to_prepare(root)
    if verify:
        refuse_unused(prepare, locals(), "verify", "root")
        return _verify(folder)
    output_folder(folder, "root")
    _check(val_fraction, test_fraction, seed, shard_size)
    settings = _settings(sources, val_fraction, test_fraction, keep_splits, seed, shard_size, on_error)
    summary = _prepare(folder, sources or (), settings, on_error)
    say("", f"In           {folder}")
    trained = [name for name, splits in summary.items() if "train" in splits]
    own = json.dumps(trained or list(summary))
    if trained:
        say(f"Train on it  lit-detect fit --config CONFIG --data.root {quoted(root)} --data.train {quoted(own)}")
    else:
        say(f"Test on it   lit-detect test --ckpt_path CHECKPOINT --data.root {quoted(root)} --data.test {quoted(own)}")
    return summary


def prepare_for_run(root: str, sources: list[TextSource], on_error: OnError = "stop") -> None:
    """Prepare sources with the default arguments of `prepare` for a run that goes on with them.

    Args:
        root: Folder of the sources, as in `prepare`.
        sources: The sources.
        on_error: What a bad row does, as in `prepare`.

    Raises:
        UserError: As `prepare`.
        RunFailure: If the disk is full.
    """
    folder = root_to_prepare(root)
    output_folder(folder, "root")
    _prepare(folder, sources, _settings(sources, **{**_defaults(), "on_error": on_error}), on_error)


def all_there(root: str, sources: list[TextSource], on_error: OnError = "stop") -> bool:
    """Tell whether `prepare` has written sources, with its default arguments, and none of their files is damaged.

    Args:
        root: Folder of the sources, as in `prepare`.
        sources: The sources.
        on_error: What a bad row does, as in `prepare`.
    """
    folder = root_to_prepare(root)
    try:
        for name, settings in _settings(sources, **{**_defaults(), "on_error": on_error}).items():
            if not is_prepared(folder / name, settings, shown):
                return False
            check_prepared(folder / name)
    except UserError:
        return False  # `prepare` says why, and mends what it can
    return True


def _defaults() -> dict[str, Any]:
    parameters = inspect.signature(prepare).parameters
    return {name: one.default for name, one in parameters.items() if name not in ("root", "sources", "verify")}


def _prepare(folder: Path, sources: Iterable[TextSource], settings: Mapping[str, Any], on_error: OnError) -> Summary:
    """Write the sources that are not there as they are wanted, and tell what there is."""
    reused, left_out, bad = set(), {}, {}
    with workplace(folder, f"*/{RECORD}") as work:
        for source in sources:
            name = source.name
            if is_prepared(folder / name, settings[name], shown) and is_whole(folder / name):
                reused.add(name)
                continue
            remove_folder(work / name)  # of a killed run
            bad[name] = BadRows(on_error)
            left_out[name] = _write(work / name, source, settings[name], bad[name])
            replace_whole(folder / name, work / name)
    summary = {name: _summary(folder / name) for name in settings}
    _print(summary, reused)
    for name, count in left_out.items():
        kept = sum(int(row["human"] + row["machine"]) for row in summary[name].values())
        why = ", since they repeat others" if count else ""
        say(f"{name}: {kept + count:,} texts read, {kept:,} kept, {count:,} set aside{why}.")
        bad[name].tell(folder / name / SET_ASIDE)
    return summary


def _settings(
    sources: list[TextSource] | None,
    val_fraction: float,
    test_fraction: float,
    keep_splits: bool,
    seed: int,
    shard_size: int,
    on_error: OnError,
) -> dict[str, dict[str, Any]]:
    """Return the arguments that the shards depend on by source, after checking the sources."""
    if not sources:
        raise UserError("sources is empty; name at least one, such as `--sources+=LitShiftJSONL`, or set verify.")
    for name, count in Counter(checked_name(source.name) for source in sources).items():
        if count > 1:
            raise UserError(f"{count} sources are named {name}; give each its own `name`.")
    options = {
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "keep_splits": keep_splits,
        "seed": seed,
        "shard_size": shard_size,
        **({"on_error": on_error} if on_error != "stop" else {}),
    }
    settings = plain({source.name: {"source": source.describe(), **options} for source in sources})
    return {name: shown(own) for name, own in settings.items()}


def _write(folder: Path, source: TextSource, settings: dict[str, Any], bad: BadRows) -> int:
    """Write one source, its record last. Returns the number of texts that repeat others and were left out."""
    survey = Survey(source.name, settings["keep_splits"])
    refused: set[int] = set()
    source.bad = bad
    for number, record in enumerate(_counted(source.records(), f"Reading {source.name}"), 1):
        try:
            survey.add(record)
        except UserError as error:
            bad.add(f"{source.name}, text {number}", error)
            refused.add(number)
    splits = survey.splits(settings["val_fraction"], settings["test_fraction"], settings["seed"])
    if not splits:
        raise UserError(f"The source {source.name} has no texts; correct its path.")
    writers: dict[str, TextWriter] = {}
    classes: dict[str, Counter[tuple[str, int]]] = {}
    source.bad = BadRows(bad.on_error)  # the same once more
    read = 0
    for number, record in enumerate(_counted(source.records(), f"Writing {source.name}", len(splits)), 1):
        if number in refused:
            continue
        split = splits[read] if read < len(splits) else ""
        read += 1
        if split:
            writers.setdefault(split, TextWriter(folder / split, settings["shard_size"])).add(
                replace(record, split=split)
            )
            classes.setdefault(split, Counter())[record.domain, int(record.label or HUMAN)] += 1
    if read != len(splits):
        raise RunFailure(f"The source {source.name} changed while it was read; repeat the command.")
    for split in filter(writers.__contains__, SPLITS):
        _check_classes(source.name, split, classes)
        writers[split].finish(source=source.name, split=split, licence=source.licence, origin=source.origin)
    bad.write(folder / SET_ASIDE)
    left_out = splits.count("")
    texts = {"found": read, "left_out": left_out}
    content = {**stamp(PREPARED), "release": __version__, "versions": versions(), "settings": settings, "texts": texts}
    content["sets"] = index_hashes(folder)
    atomic_write(folder / RECORD, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return left_out


def _counted(records: Iterator[Record], what: str, total: int | None = None) -> Iterable[Record]:
    return progress_bar(records, desc=what, total=total, unit=" texts")


def _check_classes(name: str, split: str, classes: dict[str, Counter[tuple[str, int]]]) -> None:
    """Refuse a split without human or machine texts. Print the domains that lack a class in this split only."""
    found = {label for _, label in classes[split]}
    for label, kind in enumerate(("human", "machine")):
        if label not in found:
            raise UserError(
                f"{split} of the source {name} has {classes[split].total():,} texts, but no {kind} texts, and a "
                "detector is trained and tested on both; give texts of both classes, or other fractions."
            )
    anywhere = {pair for counts in classes.values() for pair in counts}
    missing = sorted({domain for domain, _ in anywhere - classes[split].keys()})
    if missing:
        shown = ", ".join(domain or "no domain" for domain in missing[:5]) + (", …" if len(missing) > 5 else "")
        say(f"{split} of {name} lacks human or machine texts of {len(missing)} domains: {shown}.")


def _verify(root: Path) -> Summary:
    records = sorted(root.glob(f"*/{RECORD}"))
    if not records:
        raise UserError(f"root is {root}, but it was not written by prepare; correct the path.")
    for record in records:
        check_prepared(record.parent)
    summary = {record.parent.name: _summary(record.parent) for record in records}
    _print(summary, reused=set())
    say("", f"All shards of {root} match their indices.")
    return summary


def _summary(folder: Path) -> dict[str, dict[str, float]]:
    rows = {}
    for split in splits_of(folder):
        meta = TextSet(folder / split).meta
        rows[split] = {key: meta[key] for key in ("human", "machine", "median_characters")}
    return rows


def _print(summary: Summary, reused: set[str]) -> None:
    lines = [["source", "split", "human", "machine", "median characters"]]
    for name, splits in summary.items():
        for split, row in splits.items():
            counts = [f"{row['human']:,}", f"{row['machine']:,}", f"{row['median_characters']:,.0f}"]
            lines.append([name, split, *counts, *["unchanged"] * (name in reused)])
    say("", *text_table(lines))
