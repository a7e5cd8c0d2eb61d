"""The two ways in which a command ends badly: the user's mistake, and a run that failed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: an argument, a config, a file.

    The message is one sentence that names the argument or the file and line, the value, the rule and the remedy.
    The command line prints it without a traceback and exits with 2.
    """


class RunFailure(RuntimeError):
    """A run that failed through no mistake of the user: a loss that is not finite, a full disk, a dead process.

    The message is one sentence. The command line prints it without a traceback and exits with 1.
    """


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Suggest the nearest of some names.

    Args:
        word: What was typed.
        choices: The names that exist.

    Returns:
        A clause such as ``' Did you mean "seed"?'``, with a leading blank, or the empty string if nothing is near.
    """
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""
