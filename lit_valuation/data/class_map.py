"""Class maps: how a party's own names of classes are called among all parties of an exchange."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from lit_core.data.stream import IGNORED
from lit_core.errors import UserError, did_you_mean
from lit_core.files.rows import csv_rows
from lit_core.screen import say
from lit_valuation.samples import Samples, composed

#: Columns of the file.
OWN, SHARED = "class", "shared"


def read_class_map(path: str | Path) -> dict[str, str]:
    """Read a class map: a CSV file with the columns ``class`` and ``shared``.

    Args:
        path: The file. A row gives the shared name of one of the party's own classes, or none, which leaves its samples
            out. Several classes may have one shared name.

    Returns:
        Shared names by own names; an empty one leaves a class out.

    Raises:
        UserError: If there is no such file, a column is missing, or a class has two shared names.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"classes is {path}, but there is no such file; give a CSV of the columns {OWN} and {SHARED}.")
    shared: dict[str, str] = {}
    for where, row in csv_rows(file):
        if set(row) != {OWN, SHARED}:
            raise UserError(f"{file}, line 1 must be {OWN},{SHARED}, but is {','.join(row)}; fix the line.")
        own, target = (composed(row[column].strip()) for column in (OWN, SHARED))
        if not own:
            raise UserError(f"{where}: the column {OWN} is empty; name a class of yours, or remove the line.")
        if shared.get(own, target) != target:
            raise UserError(
                f"{where} gives the class {own!r} the shared name {target!r}, but a line before it gives "
                f"{shared[own]!r}; keep one of them."
            )
        shared[own] = target
    if not shared:
        raise UserError(f"{file} names no class; add a line for each of yours.")
    return shared


def with_shared_names(samples: Samples, shared: Mapping[str, str], path: str | Path) -> Samples:
    """Return samples whose classes have their shared names, without those of classes that have none.

    Labels, tags and target columns are renamed likewise, and those without a shared name are left out; a token whose
    tag is left out has none. A sample has a shared label if it has any of those that become it; a label or tag of the
    map that no sample has stays.

    Args:
        samples: Samples of the party's own classes.
        shared: Shared names by own names, as `read_class_map` returns them.
        path: Path of the class map, for messages.

    Raises:
        UserError: If the map does not know a class, or leaves all out, or two target columns become one.
    """
    if samples.target == "text":
        raise UserError(f"classes is {path}, but texts whose tokens are predicted have no names; leave it out.")
    counts = samples.counts()
    own = [name for name in samples.classes if name in counts and (counts[name] or samples.target != "tags")]
    for name in own:
        if name not in shared:
            raise UserError(
                f"The samples hold the class {name!r}, which {path} does not name; add a line for it, without a shared "
                f"name to leave its samples out.{did_you_mean(name, shared)}"
            )
    unused = [name for name in shared if name not in own]
    if unused:
        say(f"Note: {len(unused):,} classes of {path} have no samples, such as {unused[0]}.", error=True)
    named = shared if samples.target in ("labels", "tags") else own
    targets = tuple(sorted({shared[name] for name in named} - {""}))
    if not targets:
        raise UserError(f"{path} gives no class of the samples a shared name, so all are left out; add some.")
    if samples.target == "tags":
        return _with_shared_tags(samples, shared, targets)
    if samples.target != "class":
        return _with_shared_columns(samples, shared, targets, path)
    number = {name: index for index, name in enumerate(targets)}
    new = torch.tensor([number.get(shared.get(name, ""), -1) for name in samples.classes], dtype=torch.int64)[samples.y]
    kept = (new >= 0).nonzero().squeeze(1)
    return replace(samples.take(kept), y=new[kept], classes=targets)


def note_alike(names: Sequence[str], what: str) -> None:
    """Print a note on names that differ in nothing but case, blanks, compatible characters or the form of a number.

    Args:
        names: Names of classes, labels or target columns.
        what: Which of them they are.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_folded(name), []).append(name)
    for of_one in alike.values():
        if len(of_one) > 1:
            say(
                f"Note: the {what} {', '.join(map(repr, of_one))} count as different; if they are one, give them one "
                "name by `classes`.",
                error=True,
            )


def _folded(name: str) -> str:
    with suppress(ValueError):
        return repr(float(name))
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _with_shared_tags(samples: Samples, shared: Mapping[str, str], targets: tuple[str, ...]) -> Samples:
    """Return texts whose tags have their shared names, without those of which no token has a tag that is left."""
    names = [shared.get(name, "") for name in samples.classes]
    indices = torch.tensor([targets.index(name) if name else IGNORED for name in names])
    y = indices[samples.y.clamp(min=0)].where(samples.y != IGNORED, IGNORED)
    kept = (y != IGNORED).any(1).nonzero().squeeze(1)
    return replace(samples.take(kept), y=y[kept], classes=targets)


def _with_shared_columns(
    samples: Samples, shared: Mapping[str, str], targets: tuple[str, ...], path: str | Path
) -> Samples:
    """Return samples whose labels or target columns have their shared names."""
    columns = {name: [i for i, own in enumerate(samples.classes) if shared[own] == name] for name in targets}
    for name, found in columns.items():
        if len(found) > 1 and samples.target == "values":
            both = ", ".join(samples.classes[i] for i in found)
            raise UserError(f"{path} gives the target columns {both} the one name {name!r}; give each its own.")
    if samples.target == "values":
        y = samples.y[:, [found[0] for found in columns.values()]]
    else:
        y = torch.stack([samples.y[:, found].sum(1).clamp(max=1) for found in columns.values()], dim=1)
    return replace(samples, y=y, classes=targets)
