"""The verb ``prepare``: one party's own data, as labelled shards that all other commands read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lit_core.data.prepared import check_prepared, is_whole
from lit_core.data.shards import splits_of
from lit_core.errors import UserError, check_at_least, checked_first, refuse_unused, require
from lit_core.files.json_files import plain
from lit_core.files.outputs import output_folder
from lit_core.files.paths import atomic_write, file_sha256, resolve_data_path
from lit_core.files.tables import CsvWriter, text_table
from lit_core.files.working_folder import RECORD, is_prepared, read_prepared, root_to_prepare
from lit_core.record import shown
from lit_core.screen import quoted, say
from lit_core.seeds import checked_seed
from lit_valuation.data.class_map import note_alike, read_class_map, with_shared_names
from lit_valuation.data.division import n_contradictions, remove_duplicates
from lit_valuation.data.filled_root import fill_root, write_root_record
from lit_valuation.data.labelled_sets import LabelledSet, write_labelled
from lit_valuation.data.splitting import split
from lit_valuation.data.vocabulary import store_tokenizer
from lit_valuation.exchange.ledger import LEDGER
from lit_valuation.samples import NAMED, Samples, merge_samples
from lit_valuation.sources import LabelledSource

#: Table of the samples: their names, splits and classes, and where they come from.
NAMES = "samples.csv"
#: Contents of a root, in the order in which they are moved there.
_PARTS = ("train", "val", "test", NAMES, RECORD)
#: Fractions where nothing else is given.
_FRACTIONS = {"val": 0.2, "test": 0.1}
#: Number of classes that the printed table shows.
_COLUMNS = 6

#: Number of samples by split and class.
Summary = dict[str, dict[str, int]]


def _check(val_fraction: float | None, test_fraction: float | None, seed: int, shard_size: int) -> None:
    fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction}
    for name, fraction in fractions.items():
        require(fraction is None or 0 <= fraction < 1, name, fraction, "from 0 to below 1")
    both = sum(fraction or 0 for fraction in fractions.values())
    require(both < 1, "val_fraction + test_fraction", both, "below 1, so that something is left to train on")
    checked_seed("seed", seed)
    check_at_least(1, shard_size=shard_size)


@checked_first(_check)
def prepare(
    root: str,
    source: LabelledSource | None = None,
    val: LabelledSource | None = None,
    test: LabelledSource | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    classes: str | None = None,
    seed: int = 0,
    shard_size: int = 2000,
    verify: bool = False,
) -> Summary:
    """Write a party's own samples as labelled shards with the splits train, val and test, for all other commands.

    A sample's target is its class, several labels, numbers to be predicted, a tag for each word of a text, or the text
    itself, as the source says.

    Exact copies of a sample are left out, whatever their class; if val or test hold a copy of a sample, train does not.
    The root changes only at the end. Equal arguments give equal files.

    Args:
        root: Folder of the data: absolute, from the working directory if it begins with ``./``, or below the data root.
            A folder of that name in the working directory is taken only if prepare wrote it.
        source: Your samples, by class name, such as ImageFolder or Table.
        val: Your samples of the split val, by class name; null takes a fraction of the source.
        test: Your samples of the split test, by class name; null takes a fraction of the source.
        val_fraction: Fraction of each class for val, from 0, without val; null takes 0.2.
        test_fraction: Fraction of each class for test, from 0, without test; null takes 0.1.
        classes: Path of a class map, a CSV file with the columns class and shared: your names of classes, labels or
            target columns, and those on which all parties have agreed. One without a shared name is left out; null
            takes your names.
        seed: Seed of the draw of the splits, 0 or more.
        shard_size: Samples per shard, 1 or more.
        verify: Whether to only compare the files in the root with their recorded hashes.

    Returns:
        Number of samples by split and class; with each label or tag; or by target column.

    Raises:
        UserError: If an argument or the source is wrong, or the root holds other files.
        RunFailure: If the disk is full.
    """
    if verify:
        refuse_unused(prepare, locals(), "verify", "root")
        return _verify(resolve_data_path(root))
    folder = root_to_prepare(root)
    output_folder(folder, "root")
    _check(val_fraction, test_fraction, seed, shard_size)
    if source is None:
        raise UserError("source is missing; name one, such as `--source ImageFolder`, or set verify to true.")
    given = {"val": val, "test": test}
    fractions = _fractions(given, {"val": val_fraction, "test": test_fraction})
    shared = None if classes is None else read_class_map(classes)
    sources = {"train": source, **{name: one for name, one in given.items() if one is not None}}
    settings = plain(
        {
            **{"source" if name == "train" else name: one.describe() for name, one in sources.items()},
            **{f"{name}_fraction": fraction for name, fraction in fractions.items()},
            **{"classes": shared, "seed": seed, "shard_size": shard_size},
        }
    )
    settings = shown(settings)
    fill_root(
        folder,
        _PARTS,
        settings,
        is_done=lambda: _is_prepared(folder, settings) and _is_whole(folder),
        write=lambda ready: _write(ready, _own(sources, shared, classes), fractions, settings),
        beside=LEDGER,
    )
    if source.tokenizer is not None:
        store_tokenizer(folder, source.tokenizer)
    summary = _summary(folder)
    place = root if resolve_data_path(root) == folder else folder
    say("", f"In           {folder}")
    say(f"Names        {folder / NAMES} tells where each sample comes from; keep it to yourself")
    train = f"lit-valuation fit --config CONFIG --data.root {quoted(place)}"
    if LabelledSet(folder / "train", verify=False).target == "text":  # for which there is no task of ours
        train = f"a language model of your own, by Lightning on OwnersDataModule({str(place)!r})"
    say(f"Train on it  {train}")
    return summary


@dataclass(frozen=True)
class _Own:
    """A party's samples by given split, the source's in ``train``, and what is stored and said of them."""

    samples: Mapping[str, Samples]
    sources: Mapping[str, LabelledSource]
    places: Mapping[str, str]
    found: int


def _fractions(given: Mapping[str, Any], typed: Mapping[str, float | None]) -> dict[str, float]:
    """Return the fraction of each split that is drawn from the source."""
    for name, one in given.items():
        if one is not None and typed[name] is not None:
            raise UserError(
                f"{name}_fraction is {typed[name]}, but {name} gives the samples of that split; leave out one of them."
            )
    return {
        name: _FRACTIONS[name] if (value := typed[name]) is None else value
        for name, one in given.items()
        if one is None
    }


def _is_prepared(folder: Path, settings: dict[str, Any]) -> bool:
    if (folder / "trainer").is_dir():
        raise UserError(
            f"root is {folder}, which `lit-valuation divide` wrote for several parties; choose another root."
        )
    try:
        return is_prepared(folder, settings, shown)
    except UserError as error:
        if not (folder / LEDGER).is_file():
            raise
        raise UserError(
            f"{error} Move {folder / LEDGER} into the new folder, so that what you have shared stays counted."
        ) from error


def _is_whole(folder: Path) -> bool:
    if not is_whole(folder):
        return False
    try:
        _check_names(folder)
    except UserError as error:
        say(f"{folder} is prepared anew. {error}")
        return False
    return True


def _check_names(folder: Path) -> None:
    recorded = read_prepared(folder / RECORD, f"remove {folder} to prepare it again").get("names_sha256")
    if not (folder / NAMES).is_file() or file_sha256(folder / NAMES) != recorded:
        raise UserError(f"{folder / NAMES} is missing or damaged; prepare the source again or restore the file.")


def _own(sources: Mapping[str, LabelledSource], shared: Mapping[str, str] | None, classes: str | None) -> _Own:
    """Read all sources, rename the classes, and leave out exact copies."""
    read: dict[str, Samples] = {}
    places: dict[str, str] = {}
    for name, source in sources.items():
        samples = source.samples()
        keys = samples.keys if name == "train" else tuple(f"{name}-{key}" for key in samples.keys)
        places |= dict(zip(keys, source.places or (), strict=False))
        read[name] = replace(samples, keys=keys)
        _check_alike(sources["train"], read["train"], source, samples, name)
    together = merge_samples(list(read.values())[::-1])  # of copies, the first stays
    together = together.renumbered(tuple(dict.fromkeys((*read["train"].classes, *together.classes))))
    if shared is not None and classes is not None:
        together = with_shared_names(together, shared, classes)
    note_alike(list(together.counts()), NAMED[together.target])
    kept = remove_duplicates(together)
    if len(kept) < len(together):
        others = n_contradictions(together)
        contrary = f" {others:,} of them have another target: of each input the first counts." if others else ""
        say(f"Left out: {len(together) - len(kept):,} exact copies of other samples.{contrary}")
    of = {key: name for name, samples in read.items() for key in samples.keys}
    split_of = [of[key] for key in kept.keys]
    parts = {name: kept.take([i for i, other in enumerate(split_of) if other == name]) for name in read}
    trained = parts["train"].counts()
    for name, part in parts.items():
        foreign = sorted(one for one, count in part.counts().items() if count and not trained.get(one))
        if foreign and part.target in ("class", "tags"):
            what = "class" if part.target == "class" else "tag"
            raise UserError(
                f"{name} holds the {what} {foreign[0]!r}, of which the source has no sample; add some, or give both "
                "the same names by `classes`."
            )
        if not len(part):
            raise UserError(f"{name} has no sample that is left; give others.")
    return _Own(parts, sources, places, len(together))


def _check_alike(source: LabelledSource, samples: Samples, other: LabelledSource, others: Samples, name: str) -> None:
    """Refuse a given split whose inputs or targets are of another kind than those of the source."""
    for what, one, two in (
        ("inputs", source.input, other.input),
        ("inputs of the shape", tuple(samples.x.shape[1:]), tuple(others.x.shape[1:])),
        ("embeddings by", source.made_by, other.made_by),
        ("the columns", source.columns, other.columns),
        ("tokens of the vocabulary", source.vocabulary, other.vocabulary),
        ("the target", samples.target, others.target),
    ):
        if one != two:
            raise UserError(f"{name} holds {what} {two}, but the source {one}; give both alike.")


def _write(ready: Path, own: _Own, fractions: Mapping[str, float], settings: Mapping[str, Any]) -> None:
    """Write the contents of the root, the record last."""
    source = own.sources["train"]
    drawn = split(own.samples["train"], fractions, int(settings["seed"]))
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.row(["name", "split", "class" if own.samples["train"].target == "class" else "target", "from"])
    for name, samples in {**own.samples, **drawn}.items():
        of_split = own.sources.get(name, source)
        write_labelled(
            ready / name,
            samples,
            source=of_split.name,
            split=name,
            licence=of_split.licence,
            origin=of_split.origin,
            meta=of_split.meta(),
            shard_size=int(settings["shard_size"]),
        )
        for key, target in zip(samples.keys, samples.described(), strict=True):
            writer.row([key, name, target, own.places.get(key, "")])
    atomic_write(ready / NAMES, text.getvalue())
    kept = sum(map(len, own.samples.values()))
    write_root_record(ready, settings, own.found, kept, names_sha256=file_sha256(ready / NAMES))


def _verify(root: Path) -> Summary:
    if not (root / RECORD).is_file() or not splits_of(root):
        several = "; compare it by `lit-valuation divide`" if (root / "trainer").is_dir() else "; correct the path"
        raise UserError(f"root is {root}, but it was not written by prepare{several}.")
    check_prepared(root)
    _check_names(root)
    summary = _summary(root)
    say("", f"All shards of {root} match their recorded hashes.")
    return summary


def _summary(root: Path) -> Summary:
    """Print a line per split: its samples, and those of the first classes or labels, or means and deviations."""
    sets = {name: LabelledSet(root / name).targets() for name in splits_of(root)}
    counts = {name: dict(sorted(samples.counts().items())) for name, samples in sets.items()}
    names = list(dict.fromkeys(name for of_split in counts.values() for name in of_split))
    shown_names = names[:_COLUMNS]
    lines = [["split", "samples", *(name[:12] for name in shown_names)]]
    for name, samples in sets.items():
        cells = [f"{counts[name].get(one, 0):,}" for one in shown_names]
        if samples.target == "values":
            columns = [samples.y[:, samples.classes.index(one)].double() for one in shown_names]
            cells = [f"{float(column.mean()):.4g} ± {float(column.std(correction=0)):.4g}" for column in columns]
        lines.append([name, f"{len(samples):,}", *cells])
    say("", *text_table(lines))
    if len(names) > len(shown_names):
        say(f"{len(shown_names)} of {len(names):,} {NAMED[next(iter(sets.values())).target]} are shown.")
    return counts
