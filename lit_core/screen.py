"""What reaches the screen: printed lines, warnings, log messages, progress bars, and commands to be pasted.

Names of classes, files, owners and runs may come from others. Here they cannot move the cursor, hide text or begin a
line of their own. `tests/test_screen.py` checks that everything that the packages print goes through this file.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_core.progress_bar import ProgressBar

_UNESCAPED = re.compile(r"['\\]")


def on_screen(text: object) -> str:
    r"""Return a text on one line in which everything that is not printed as a character of its own is escaped.

    These are line breaks, tabs, control characters and with them the escapes of terminals, characters that change the
    direction of text, invisible ones, and halves of surrogate pairs.

    Args:
        text: The text, or an object such as a path.

    Example:
        >>> print(on_screen("cat\n\x1b[2J\u202etac é"))
        cat\n\x1b[2J\u202etac é
    """
    text = str(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def say(*lines: object, error: bool = False) -> None:
    """Print lines. A line break within one of them is part of a name, and is escaped as all the rest.

    Args:
        lines: The lines; none prints an empty one.
        error: Whether to print to standard error.
    """
    text = "\n".join(on_screen(line) for line in lines)
    file = sys.stderr if error else sys.stdout
    encoding = getattr(file, "encoding", None) or "utf-8"
    clear_bars()
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=file, flush=True)


def rank_zero_info(message: str) -> None:
    """Log a message on rank zero, as Lightning's function of this name does."""
    from lightning.pytorch import utilities

    utilities.rank_zero_info(on_screen(message))


def rank_zero_warn(message: str, category: type[Warning] = UserWarning, stacklevel: int = 5) -> None:
    """Warn on rank zero, as Lightning's function of this name does."""
    from lightning.pytorch import utilities

    clear_bars()
    utilities.rank_zero_warn(on_screen(message), category=category, stacklevel=stacklevel + 1)


def logger(name: str) -> logging.Logger:
    """Return the logger of a module, whose messages are escaped."""
    found = logging.getLogger(name)
    if _escape_record not in found.filters:
        found.addFilter(_escape_record)
    return found


def progress_bar(*args: Any, desc: str, shown: bool = True, **options: Any) -> ProgressBar:
    """Return the progress bar of all commands, on standard error, which is removed when it is done.

    Args:
        args: The items, if any.
        desc: Label of the bar.
        shown: Whether this process shows it.
        options: Further arguments of `lit_core.progress_bar.ProgressBar`.
    """
    from lit_core.progress_bar import ProgressBar

    common: dict[str, Any] = {"file": sys.stderr, "leave": False, "dynamic_ncols": True, "disable": not shown}
    return ProgressBar(*args, desc=on_screen(desc), **common, **options)


def clear_bars() -> None:
    """Remove the progress bars from a terminal, so that a line does not go on behind one; they are soon drawn again."""
    module = sys.modules.get("lit_core.progress_bar")
    if module is not None:
        module.ProgressBar.clear_all()


def quoted(value: object) -> str:
    """Return a word of a printed command, so that a shell reads the value back.

    Args:
        value: A text or a path.

    Example:
        >>> print(quoted("runs/first"), quoted("my runs/it's"))
        runs/first 'my runs/it'"'"'s'
    """
    text = str(value)
    if text.isprintable():
        return shlex.quote(text)
    written = (c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(c)) for c in _bash(text))
    return f"$'{''.join(written)}'"


def _bash(text: str) -> str:
    return _UNESCAPED.sub(r"\\\g<0>", text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return character.encode("unicode_escape").decode()
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_record(record: logging.LogRecord) -> bool:
    clear_bars()
    record.msg, record.args = on_screen(record.getMessage()), ()
    return True
