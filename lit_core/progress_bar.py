"""The progress bar of all commands: on a terminal a bar with the time left, elsewhere a plain line a minute."""

from __future__ import annotations

import math
import time
from collections.abc import MutableMapping
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

#: Seconds between two lines where there is no terminal.
EVERY = 60
#: Columns of a terminal for the name of a bar.
_NAME = 34
_NUMBERS = "{n_fmt}/{total_fmt} [{remaining} left{rate_shown}{postfix}]"
#: Columns that the bar itself needs, with the percentage before it.
_BAR_WIDTH = 10
_LINE = "{desc}: {n_fmt} of {total_fmt} ({percentage:.0f}%), {remaining} left{rate_shown}{postfix}"
_LINE_WITHOUT_TOTAL = "{desc}: {n_fmt}{rate_shown}{postfix}"


class ProgressBar(tqdm):
    """A bar of tqdm that never writes control characters where there is no terminal.

    Args:
        args: See tqdm.
        with_rate: Whether the speed in units per second is shown.
        options: See tqdm.
    """

    dynamic_ncols: Any

    def __init__(self, *args: Any, with_rate: bool = True, **options: Any) -> None:
        self._with_rate = with_rate
        file = options["file"]
        self._is_plain = not (hasattr(file, "isatty") and file.isatty())
        self._said = time.monotonic()
        super().__init__(*args, **options)
        if self.disable:
            return
        shape_of = self.dynamic_ncols

        def known_shape(file: Any) -> tuple[int, int]:
            """Return columns and lines; those of a usual terminal where it does not tell, as a container's."""
            columns, lines = shape_of(file)
            return (columns if (columns or 0) > 0 else 79, lines if (lines or 0) > 0 else 23)

        self.dynamic_ncols = known_shape
        self.ncols, self.nrows = known_shape(self.fp)

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """What tqdm fills into a line, and the form of the line."""
        values: MutableMapping[str, Any] = super().format_dict
        if self.disable:  # as on further ranks; there is nothing to fill in
            return values
        rate = f", {self._rate(values)}" if self._with_rate else ""
        values["prefix"] = values["prefix"].removesuffix(": ")
        if len(values["prefix"]) > _NAME - 2 and not self._is_plain:
            values["prefix"] = f"{values['prefix'][: _NAME - 3]}…"
        if self._is_plain:
            form: str | None = _LINE if self.total else _LINE_WITHOUT_TOTAL
        else:
            form = "{desc}: " + _NUMBERS if self.total else None
        form = form and form.replace("{rate_shown}", rate)
        if form and not self._is_plain:
            length = len(self.format_meter(**{**values, "bar_format": form, "ncols": None}))
            if length + _BAR_WIDTH <= (values["ncols"] or math.inf):
                form = form.replace("{desc}: ", "{l_bar}{bar}| ")
        values["bar_format"] = form
        return values

    @staticmethod
    def _rate(values: MutableMapping[str, Any]) -> str:
        """Return the speed as a form of tqdm: units per second, or the seconds that a slow one takes."""
        rate = values["rate"] or (values["elapsed"] and (values["n"] - values["initial"]) / values["elapsed"])
        if not rate or values["unit_scale"]:
            return "{rate_noinv_fmt}"
        return f"{1 / rate:.2f} s each" if rate < 1 else f"{rate:.2f}{values['unit']}/s"

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Show the bar; where there is no terminal, write a line if the last one, or the start, is a minute ago."""
        if not self._is_plain:
            return super().display(msg, pos)
        now = time.monotonic()
        if now - self._said < EVERY:
            return False
        self._said = now
        self.fp.write(f"{self}\n")
        self.fp.flush()
        return True

    def clear(self, nolock: bool = False) -> None:
        """Remove the bar from a terminal, so that a line can be written in its place."""
        if not self._is_plain:
            super().clear(nolock)

    @classmethod
    def clear_all(cls) -> None:
        """Remove all bars from a terminal until they are next drawn."""
        for bar in list(getattr(cls, "_instances", ())):
            if isinstance(bar, cls):
                bar.clear()

    def close(self) -> None:
        """Remove the bar, or leave it as it is where that was asked for."""
        if self._is_plain:
            self.delay = math.inf  # as if it had never been shown, so that nothing is to be removed
        super().close()
