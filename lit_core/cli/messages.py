"""Exceptions as one-sentence messages, and the distinction between user errors and failed runs."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

from lit_core.cli.ranks import is_lost_peer
from lit_core.errors import RunFailure, UserError
from lit_core.files.paths import FULL_DISK
from lit_core.parser_messages import parser_sentence
from lit_core.screen import on_screen

#: Error numbers of paths that cannot be used as they were given.
_WRONG_PATH = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR),
    *(errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
)
#: What pathlib says of a path such as ~nobody/texts.csv.
_NO_HOME = "Could not determine home directory."


def sentence(error: BaseException, verb: Callable[..., Any] | None = None) -> str:
    """Describe an exception in one sentence.

    Args:
        error: The exception. If its chain of causes contains an error of ours, that one is described.
        verb: The function whose arguments were given; None for Lightning's commands.

    Returns:
        One line, without a traceback.
    """
    return on_screen(_sentence(error, verb))


def _sentence(error: BaseException, verb: Callable[..., Any] | None) -> str:
    cause = root_cause(error)
    text = " ".join(str(cause).split())
    if isinstance(cause, UserError | RunFailure):
        return text
    if is_lost_peer(cause):
        return "Another process of this run has ended or cannot be reached; its error message, if any, is above."
    place = getattr(cause, "filename", None)
    name = os.fsdecode(place) if isinstance(place, str | bytes) else ""
    if is_full_disk(cause):
        written = name or _written(cause) or "a file"
        return f"The disk is full: {written} could not be written; free some space and repeat."
    if isinstance(cause, OSError) and name:
        remedy = "choose another path or correct its permissions" if is_user_error(cause) else "see to it and repeat"
        return f"{name} cannot be used ({cause.strerror}); {remedy}."
    if _is_homeless(cause):
        return "A path begins with ~ and the name of no user of this machine; write the path without ~."
    if _is_misconfiguration(cause):
        return f"The trainer's options are not valid: {text.rstrip('.!')}; correct them."
    if _is_interpolation_error(cause):
        command, _, key = str(getattr(cause, "full_key", "")).partition(".")
        unset = re.search("Environment variable '[^']*' not found", str(cause))
        reason = unset[0] if unset else str(cause).splitlines()[0].replace(f"'{command}.", "'")
        remedy = "set it, or " if unset else ""
        return f"{key or 'A value'}: {reason}; {remedy}correct the name within the braces."
    if is_user_error(cause):
        return parser_sentence(str(error), verb)
    return f"{type(cause).__name__}: {text}"


def root_cause(error: BaseException) -> BaseException:
    """Return the first of our own errors, or a full disk, in a chain of causes; otherwise the exception itself."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:  # a chain can be circular
        seen.add(id(link))
        if isinstance(link, UserError | RunFailure) or is_full_disk(link):
            return link
        link = link.__cause__ or link.__context__
    return error


def is_full_disk(error: BaseException) -> bool:
    """Tell whether an error means that the disk, a quota or a file-size limit is full."""
    return isinstance(error, OSError) and error.errno in FULL_DISK


def _written(error: BaseException) -> str | None:
    """Return the file that a library was writing, of which the system does not tell the name."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    named = (frame.f_locals.get("filename") for frame in reversed(frames))
    return next((os.fsdecode(name) for name in named if isinstance(name, str | bytes)), None)


def is_user_error(error: BaseException) -> bool:
    """Tell whether the user's input caused an error."""
    if isinstance(error, OSError):
        return error.errno in _WRONG_PATH and error.filename is not None
    if isinstance(error, UserError | argparse.ArgumentError) or _is_misconfiguration(error):
        return True
    return _is_homeless(error) or _is_interpolation_error(error) or "Does not validate against" in str(error)


def _is_misconfiguration(error: BaseException) -> bool:
    exceptions = sys.modules.get("lightning.fabric.utilities.exceptions")  # without which there is no such error
    return exceptions is not None and isinstance(error, exceptions.MisconfigurationException)


def _is_homeless(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and str(error) == _NO_HOME


def _is_interpolation_error(error: BaseException) -> bool:
    return type(error).__module__.startswith("omegaconf.")
