"""Reader of the shipped word lists."""

from __future__ import annotations

from pathlib import Path

from lit_core.errors import RunFailure

_FOLDER = Path(__file__).parents[1] / "embedded"


def lines_of(name: str) -> list[list[str]]:
    """Return the fields of each line of a shipped list, without comment lines.

    Args:
        name: Name of the file in ``lit_detect/embedded``.

    Raises:
        RunFailure: If the file cannot be read.
    """
    try:
        lines = (_FOLDER / name).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RunFailure(f"{_FOLDER / name} cannot be read ({error}). Install the package again.") from error
    return [line.split() for line in lines if line and not line.startswith("#")]
