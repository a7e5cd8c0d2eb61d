"""Exceptions of the two kinds of failure: a mistake of the user, and a run that failed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: an argument, a config, a file.

    The message names the argument or the file and line, the value, the rule and the remedy, in one or two sentences.
    The command line prints it without a traceback and exits with 2.
    """


class RunFailure(RuntimeError):
    """A run that failed without a mistake of the user: a loss that is not finite, a full disk, a dead process.

    The message is one or two sentences. The command line prints it without a traceback and exits with 1.
    """


def check_at_least(least: int, **values: int | None) -> None:
    """Refuse numbers that are too small.

    Args:
        least: The smallest number that is allowed.
        values: The numbers, by the names of their arguments; None is not checked.

    Raises:
        UserError: If one is smaller.
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise UserError(f"`{name}` is {value}, but must be {least} or more; change it.")


def check_shares(**values: float) -> None:
    """Refuse numbers that are not shares.

    Args:
        values: The numbers, by the names of their arguments.

    Raises:
        UserError: If one is below 0 or above 1.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"`{name}` is {value}, but must be from 0 to 1; change it.")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Suggest the known name that is nearest to a mistyped one.

    Args:
        word: The mistyped name.
        choices: The names that exist.

    Returns:
        A clause such as ``' Did you mean "seed"?'``, with a leading blank, or the empty string if nothing is near.
    """
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""
