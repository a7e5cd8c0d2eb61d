"""The test of the checkpoint that a run branched from, with which a test of the run is compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_core.cli.run_folder import relative
from lit_core.errors import UserError
from lit_core.files.logged import logged_values
from lit_core.record import KEY, read
from lit_core.screen import quoted


def former_test(checkpoint: Mapping[str, Any], run: Path, arguments: tuple[str, ...]) -> dict[str, float]:
    """Return the metrics of the test of the checkpoint that a run branched from.

    Args:
        checkpoint: The tested checkpoint of the run.
        run: Its run folder.
        arguments: Arguments of the data module on which it depends what is tested, beside the files.

    Returns:
        Values by key; empty if there is no such test, or it was on other data.
    """
    parent = parent_of(checkpoint)
    if not parent:
        return {}
    folder, step = Path(parent["path"]).absolute().parent.parent, max(int(parent["step"]) - 1, 0)
    of_run, of_parent = _tested(run, arguments), _tested(folder, arguments)
    if of_run is None or of_run != of_parent:
        return {}
    try:
        former = logged_values(folder)
    except UserError:  # a damaged file, so that there is nothing to compare with
        return {}
    pairs = ((key, logged, value) for key, logs in former.items() for logged, value in logs)
    return {key: value for key, logged, value in pairs if key.startswith("test/") and logged == step}


def parent_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded about the checkpoint that a run branched from; empty if it did not."""
    return (checkpoint.get(KEY) or {}).get("parent") or {}


def where_from(parent: Mapping[str, Any]) -> list[str]:
    """Return a sentence that says of which test the values before the branch are."""
    run = relative(Path(parent["path"]).absolute().parent.parent)
    return [f"Before: the test of step {parent['step']} of {run}, on the same data."]


def how_to_get(parent: Mapping[str, Any]) -> list[str]:
    """Return a sentence that says how the values before the branch are got."""
    if not parent:
        return ["Nothing to compare with: the run did not begin with --branch_from."]
    return [
        "To compare tests on the same data, first run the same test with",
        f"  --ckpt_path {quoted(parent['path'])}",
    ]


def _tested(run: Path, arguments: tuple[str, ...]) -> Any:
    """Return by what the data of the last test of a run are recognised; None if they are not known."""
    path = run / "run.test.json"
    try:
        record = read(path) if path.is_file() else {}
    except UserError:  # of another version
        return None
    given = ((record.get("resolved") or {}).get("data") or {}).get("init_args") or {}
    hashes = {
        one.get("source") or one["path"]: one.get("index_sha256") or one.get("sha256")
        for one in record.get("inputs", [])
        if one.get("split") == "test" or Path(one["path"]).stem == "test"
    }
    return ({name: given.get(name) for name in arguments}, hashes) if hashes else None
