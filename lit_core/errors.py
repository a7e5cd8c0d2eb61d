"""Exceptions of the two kinds of failure: a mistake of the user, and a run that failed."""

from __future__ import annotations

import difflib
import inspect
import math
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from lit_core.screen import on_screen

#: Exit codes; 128 + signal for a run that was stopped and saved. A verb returns 1 where what it examines fails, and the
#: last where it is done but for what it names.
OK, FAILED, USER_ERROR, LEFT_OUT = 0, 1, 2, 3
Verb = TypeVar("Verb", bound=Callable[..., Any])


def reason_of(error: BaseException | str, length: int = 200) -> str:
    """Return what an error of another library says, as a clause that can stand in a sentence of ours.

    Args:
        error: The error, or its message.
        length: Most characters; what is longer ends after a sentence, else after a word, never inside an address.

    Returns:
        One line without a full stop at its end; the kind of the error if it says nothing.
    """
    text = " ".join(str(error).split())
    if len(text) > length:
        begin = text[: length + 1]
        sentence = begin.rfind(". ")
        text = begin[:sentence] if sentence > 0 else f"{begin[:length].rpartition(' ')[0] or begin[:length]} …"
    return text.rstrip(". ") or (error if isinstance(error, str) else type(error).__name__)


class _Sentence(Exception):
    """An exception whose message is printed as one line, in which names of others are escaped."""

    def __str__(self) -> str:
        return on_screen(" ".join(super().__str__().split()))


class UserError(_Sentence, ValueError):
    """A mistake in what the user gave: an argument, a config, a file.

    The message names the argument or the file and line, the value, the rule and the remedy, in one or two sentences.
    The command line prints it without a traceback and exits with 2.
    """


class RunFailure(_Sentence, RuntimeError):
    """A run that failed without a mistake of the user: a loss that is not finite, a full disk, a dead process.

    The message is one or two sentences. The command line prints it without a traceback and exits with 1.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end a command as Ctrl-C does: what catches that one catches this one too.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Stopped(Exception):
    """Raised on every rank when a signal has stopped a run.

    Args:
        signum: The signal that stopped the run.
        saved: Whether a checkpoint was written.
    """

    def __init__(self, signum: int, saved: bool) -> None:
        super().__init__(f"Stopped by {signal.Signals(signum).name}{' and saved' if saved else ''}.")
        self.signum, self.saved = signum, saved


def require(holds: bool, argument: str, value: object, rule: str) -> None:
    """Refuse the value of an argument unless a rule holds.

    Args:
        holds: Whether it holds; a comparison with nan does not.
        argument: Name of the argument.
        value: Its value.
        rule: The rule, as "1 or more".

    Raises:
        UserError: If it does not hold.
    """
    if not holds:
        raise UserError(f"{argument} is {value}, but must be {rule}; change it.")


def check_at_least(least: float, **values: float | None) -> None:
    """Refuse numbers that are too small, nan and infinity.

    Args:
        least: The smallest number that is allowed.
        values: The numbers, by the names of their arguments; None is not checked.

    Raises:
        UserError: If one is smaller, or not finite.
    """
    for name, value in values.items():
        require(value is None or least <= value < math.inf, name, value, f"{least} or more{_finite(value)}")


def check_above(bound: float, **values: float | None) -> None:
    """Refuse numbers that are not above a bound, nan and infinity.

    Args:
        bound: The bound.
        values: The numbers, by the names of their arguments; None is not checked.

    Raises:
        UserError: If one is not above it, or not finite.
    """
    for name, value in values.items():
        require(value is None or bound < value < math.inf, name, value, f"above {bound}{_finite(value)}")


def check_finite_numbers(**values: float | None) -> None:
    """Refuse nan and infinity.

    Args:
        values: The numbers, by the names of their arguments; None is not checked.

    Raises:
        UserError: If one is nan or infinite.
    """
    for name, value in values.items():
        require(value is None or math.isfinite(value), name, value, "a finite number")


def check_shares(**values: float | None) -> None:
    """Refuse numbers that are not shares.

    Args:
        values: The numbers, by the names of their arguments; None is not checked.

    Raises:
        UserError: If one is below 0 or above 1.
    """
    for name, value in values.items():
        require(value is None or 0 <= value <= 1, name, value, "from 0 to 1")


def _finite(value: float | None) -> str:
    return "" if value is None or math.isfinite(value) else " and finite"


def checked_first(*checks: Callable[..., object]) -> Callable[[Verb], Verb]:
    """Let the command line check the numbers of a verb before it builds the parts that other arguments describe.

    Args:
        checks: The checks, whose arguments are some of the verb's; the verb calls them too, before it reads anything.
    """

    def mark(verb: Verb) -> Verb:
        verb.checks = checks  # type: ignore[attr-defined]
        return verb

    return mark


def refuse_unused(verb: Callable[..., Any], given: Mapping[str, Any], switch: str, *used: str) -> None:
    """Refuse options of a verb that have no effect with one of its switches.

    Args:
        verb: The verb.
        given: Its arguments by name.
        switch: Name of the switch.
        used: Names of the options that have an effect with it.

    Raises:
        UserError: If another one is not at its default.
    """
    for name, parameter in inspect.signature(verb).parameters.items():
        if name not in (switch, *used) and given[name] != parameter.default:
            raise UserError(f"{name} has no effect with {switch}; leave out one of the two.")


def did_you_mean(word: str, choices: Iterable[str], nearness: float = 0.6) -> str:
    """Suggest the known name that is nearest to a mistyped one.

    Args:
        word: The mistyped name.
        choices: The names that exist.
        nearness: Least likeness of a name that is suggested, from 0 to 1.

    Returns:
        A clause such as ``' Did you mean "seed"?'``, with a leading blank, or the empty string if nothing is near.
    """
    near = difflib.get_close_matches(word, [choice for choice in choices if choice != word], n=1, cutoff=nearness)
    return f' Did you mean "{near[0]}"?' if near else ""
