"""Lists of words that are shipped."""

from __future__ import annotations

from pathlib import Path

from lit_core.errors import RunFailure

_FOLDER = Path(__file__).parents[1] / "embedded"


def lines_of(name: str) -> list[list[str]]:
    """Return the fields of each line of a shipped list, remarks left out.

    Raises:
        RunFailure: If the list is missing.
    """
    try:
        lines = (_FOLDER / name).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RunFailure(f"{_FOLDER / name} cannot be read ({error}); install the package again.") from error
    return [line.split() for line in lines if line and not line.startswith("#")]
