"""The verb ``divide``: divide a source of labelled samples among a trainer and owners."""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_core.data.prepared import check_prepared, is_whole
from lit_core.data.shards import INDEX
from lit_core.errors import UserError, check_at_least, checked_first, refuse_unused
from lit_core.files.json_files import plain
from lit_core.files.outputs import output_folder
from lit_core.files.paths import resolve_data_path
from lit_core.files.tables import text_table
from lit_core.files.working_folder import RECORD, is_prepared, read_prepared, root_to_prepare
from lit_core.record import shown
from lit_core.screen import quoted, say
from lit_core.seeds import checked_seed
from lit_valuation.data.division import Division, remove_duplicates
from lit_valuation.data.filled_root import fill_root, write_root_record
from lit_valuation.data.labelled_sets import LabelledSet, write_labelled
from lit_valuation.data.noise import Noise
from lit_valuation.data.planting import Planting
from lit_valuation.sources import LabelledSource

#: Contents of a root, in the order in which they are moved there.
_PARTS = ("owners", "trainer", RECORD)
#: Number of classes that the printed table shows.
_COLUMNS = 4

#: Number of samples by set, such as ``owners/owner_1/train``, class and group.
Summary = dict[str, dict[str, dict[str, int]]]


def _check(seed: int, shard_size: int) -> None:
    checked_seed("seed", seed)
    check_at_least(1, shard_size=shard_size)


@checked_first(_check)
def divide(
    root: str,
    source: LabelledSource | None = None,
    planting: Planting | None = None,
    division: Division | None = None,
    noise: Noise | None = None,
    seed: int = 0,
    shard_size: int = 2000,
    verify: bool = False,
) -> Summary:
    """Divide a source among a trainer and owners, and write a folder of labelled shards for each of them.

    The trainer gets the splits train, val and test, an owner train and val. Exact copies of a sample are removed first,
    and no sample goes to two parties. The root changes only at the end. Equal arguments give equal files.

    Args:
        root: Folder of the parties: absolute, from the working directory if it begins with ``./``, or below the data
            root. A folder of that name in the working directory is taken only if divide wrote it.
        source: Where the samples come from, by class name.
        planting: What makes some samples hard, by class name; None takes the groups of the source.
        division: Number and kind of the samples that each party gets; None takes the default, with six owners.
        noise: Corruption of the owners' data; None does not corrupt them.
        seed: Seed of all random choices, 0 or more.
        shard_size: Samples per shard, 1 or more.
        verify: Whether to only compare the files in the root with their recorded hashes.

    Returns:
        Number of samples by set, such as ``owners/owner_1/train``, class and group.

    Raises:
        UserError: If an argument or the source is wrong, or the root holds other files.
        RunFailure: If the disk is full.
    """
    if verify:
        refuse_unused(divide, locals(), "verify", "root")
        return _verify(resolve_data_path(root))
    folder = root_to_prepare(root)
    output_folder(folder, "root")
    _check(seed, shard_size)
    if source is None:
        raise UserError("source is missing; name one, such as `--source Digits`, or set verify to true.")
    division, noise = division or Division(), noise or Noise()
    noise.check_owners(division.owners)
    settings = plain(
        {
            "source": source.describe(),
            "planting": planting and planting.describe(),
            "division": dataclasses.asdict(division),
            "noise": dataclasses.asdict(noise),
            "seed": seed,
            "shard_size": shard_size,
        }
    )
    settings = shown(settings)
    fill_root(
        folder,
        _PARTS,
        settings,
        is_done=lambda: is_prepared(folder, settings, shown) and is_whole(folder),
        write=lambda ready: _write(ready, source, planting, division, noise, settings),
    )
    summary = _summary(folder)
    _print(summary, division.hard)
    place = root if resolve_data_path(root) == folder else folder
    say("", f"In           {folder}")
    say(f"Train on it  lit-valuation fit --config CONFIG --data.root {quoted(place)}")
    return summary


def _write(
    ready: Path,
    source: LabelledSource,
    planting: Planting | None,
    division: Division,
    noise: Noise,
    settings: Mapping[str, Any],
) -> None:
    """Write the contents of the root, the record last."""
    seed = int(settings["seed"])
    all_samples = source.samples()
    if all_samples.target != "class":
        raise UserError(
            f"The samples of {source.name} have {all_samples.target}, but divide goes by classes; prepare each party's "
            "data by `lit-valuation prepare`."
        )
    samples = remove_duplicates(all_samples)
    if planting is not None:
        samples = planting.plant(samples, seed)
    corrupted = {}
    for (party, split), of_party in division.divide(samples, seed).items():
        name = party.split("/")[-1]
        meta: dict[str, Any] = {**source.meta(), "hard": list(division.hard)}
        if party != "trainer" and (noise.owners is None or name in noise.owners):
            of_party, keys = noise.corrupt(of_party, zlib.crc32(f"{seed} {party} {split}".encode()))
            if any(keys.values()):
                corrupted[f"{party}/{split}"] = {what: len(of_kind) for what, of_kind in keys.items()}
                meta["corrupted"] = keys
        write_labelled(
            ready / party / split,
            of_party,
            source=source.name,
            split=split,
            licence=source.licence,
            origin=source.origin,
            meta=meta,
            shard_size=int(settings["shard_size"]),
        )
    write_root_record(ready, settings, len(all_samples), len(samples), corrupted=corrupted)


def _verify(root: Path) -> Summary:
    settings = root / RECORD
    if not settings.is_file() or not (root / "trainer").is_dir():
        raise UserError(f"root is {root}, but it was not written by divide; correct the path.")
    check_prepared(root)
    summary = _summary(root)
    _print(summary, read_prepared(settings, "restore it")["settings"]["division"]["hard"])
    say("", f"All shards of {root} match their recorded hashes.")
    return summary


def _sets(root: Path) -> dict[str, Path]:
    """Return the folders of all labelled sets by party and split, such as ``owners/owner_1/train``."""
    folders = [index.parent for part in ("trainer", "owners") for index in (root / part).rglob(INDEX)]
    order = {"train": 0, "val": 1, "test": 2}
    folders.sort(key=lambda folder: (folder.parent.parent != root, folder.parent, order.get(folder.name, 3)))
    return {folder.relative_to(root).as_posix(): folder for folder in folders}


def _summary(root: Path) -> Summary:
    summary: Summary = {}
    for name, folder in _sets(root).items():
        targets = LabelledSet(folder).targets()
        counts = Counter(zip(targets.described(), targets.groups or [None] * len(targets), strict=True))
        summary[name] = {}
        for (label, group), count in sorted(counts.items(), key=lambda item: (item[0][0], item[0][1] or "")):
            summary[name].setdefault(label, {})[group or ""] = count
    return summary


def _print(summary: Summary, hard: list[str]) -> None:
    """Print a line per set: its samples and hard samples, and for the hardest classes ``samples (hard samples)``."""
    totals: Counter[str] = Counter()
    for classes in summary.values():
        for label, groups in classes.items():
            totals[label] += sum(count for group, count in groups.items() if group in hard)
    hardest = [label for label, count in totals.most_common() if count]
    columns = hardest[:_COLUMNS]
    lines = [["party", "split", "samples", "hard", *(label[:9] for label in columns)]]
    for name, classes in summary.items():
        party, _, split = name.removeprefix("owners/").rpartition("/")
        samples = sum(sum(groups.values()) for groups in classes.values())
        n_hard = sum(count for groups in classes.values() for group, count in groups.items() if group in hard)
        cells = []
        for label in columns:
            groups = classes.get(label, {})
            of_label = sum(groups.values()), sum(count for group, count in groups.items() if group in hard)
            cells.append(f"{of_label[0]:,} ({of_label[1]:,})")
        lines.append([party, split, f"{samples:,}", f"{n_hard:,}", *cells])
    say("", *text_table(lines))
    if columns:
        say(f"{len(columns)} of {len(hardest)} classes with hard samples are shown; the hard ones are in brackets.")
