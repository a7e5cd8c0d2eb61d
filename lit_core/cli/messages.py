"""One sentence for whatever goes wrong."""

from __future__ import annotations

import argparse
import inspect
import re
import sys

from lit_core.errors import RunFailure, UserError, did_you_mean
from lit_core.paths import FULL_DISK

_PARSER_KEY = re.compile(r'Parser key "([^"]+)":')
_UNKNOWN = re.compile(
    r"""unrecognized\ arguments:\ (?:--)?(?P<a>[^\s=]+)
    |Option\ '(?P<b>[^']+)'\ is\ not\ accepted
    |[Dd]oes\ not\ accept\ (?:nested\ key|option)\ '(?P<c>[^']+)'
    |(?:Key|Nested\ key|Group)\ '(?P<d>[^']+)'\ is\ not\ expected
    |No\ action\ for\ key\ "(?P<e>[^"]+)"
    |Import\ of\ dot\ import\ path\ (?P<f>\S+)\ failed
    |Expected\ a\ (?:dot\ import\ path\ string|path\ but)[:\ ]\s*(?P<g>[\w.]+)""",
    re.VERBOSE,
)
_CHOICE = re.compile(r"argument subcommand: invalid choice: '(?P<value>[^']+)' \(choose from (?P<choices>.+)\)")
_REQUIRED = re.compile(
    r"(?:Problem with given class_path '(?P<owner>[\w.]+)':\s+)?the following arguments are required: (?P<names>.+)"
)
_EXPECTED = re.compile(r"Expected an? <class '(?P<type>[\w.]+)'>(?:\. Got value: (?P<value>.+))?")
_NOISE = re.compile(
    r"Does not validate|Subtypes:|Errors:|Problem with given class_path|Given value|Expected a <class 'None"
)


def sentence(error: BaseException) -> str:
    """Put an exception into one sentence.

    Args:
        error: What was raised. One of our own errors in its chain of causes is what counts: libraries wrap them.

    Returns:
        One line, without a traceback.
    """
    cause = root_cause(error)
    if isinstance(cause, UserError | RunFailure):
        return " ".join(str(cause).split())
    if is_full_disk(cause):
        name = getattr(cause, "filename", None) or "a file"
        return f"The disk is full: {name} could not be written; free some space and repeat."
    if is_user_error(cause):
        return _parser_sentence(str(error))
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}"


def root_cause(error: BaseException) -> BaseException:
    """Return the first of our own errors, or a full disk, in a chain of causes; otherwise the exception itself."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, UserError | RunFailure) or is_full_disk(link):
            return link
        link = link.__cause__ or link.__context__
    return error


def is_full_disk(error: BaseException) -> bool:
    """Tell whether an error says that nothing more can be written."""
    return isinstance(error, OSError) and error.errno in FULL_DISK


def is_user_error(error: BaseException) -> bool:
    """Tell whether what was typed is at fault."""
    return isinstance(error, UserError | argparse.ArgumentError) or "Does not validate against" in str(error)


def _parser_sentence(text: str) -> str:
    choice = _CHOICE.search(text)
    if choice:
        choices = [name.strip(" '") for name in choice["choices"].split(",")]
        hint = did_you_mean(choice["value"], choices)
        return f"There is no command {choice['value']}.{hint} The commands are {', '.join(choices)}."
    required = _REQUIRED.search(text)
    if required:
        owner = required["owner"] or "The command line"
        return f"{owner} lacks {required['names']}; give it by flag or config."
    lines = [line.strip(" -") for line in text.splitlines()]
    keys = ".".join(dict.fromkeys(_PARSER_KEY.findall(text)))
    for line in lines:
        unknown = _UNKNOWN.search(line)
        if unknown:
            name = next(group for group in unknown.groups() if group)
            prefix = f"{keys}." if keys and not name.startswith(keys.split(".")[0]) else ""
            kind = "the name of a known class" if unknown["f"] or unknown["g"] else "an argument"
            where = f"{keys}: {name}" if unknown["f"] or unknown["g"] else f"{prefix}{name}"
            hint = did_you_mean(name.rsplit(".", 1)[-1], _known_names()) or " See --help for what is."
            return f"{where} is not {kind}.{hint}"
    useful = [line for line in lines if line and not _NOISE.search(line) and not _PARSER_KEY.fullmatch(line)]
    for line in lines:
        expected = _EXPECTED.search(line)
        if expected and expected["type"] != "NoneType":
            value = expected["value"] or _given(text)
            return f"{keys or 'The argument'} is {value}, but must be of type {expected['type']}; give one."
    return f"{keys + ': ' if keys else ''}{'; '.join(dict.fromkeys(useful)) or ' '.join(text.split())}"


def _given(text: str) -> str:
    match = re.search(r"Given value: (.+)", text)
    return match[1] if match else "something else"


def _known_names() -> set[str]:
    """Return the names of all classes, and of their arguments, that a config of ours can name."""
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

    modules = [module for name, module in list(sys.modules.items()) if name.startswith("lit_")]
    classes: set[type] = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    classes |= _subclasses(LightningModule) | _subclasses(LightningDataModule) | _subclasses(Callback)
    ours = [klass for klass in classes if not klass.__module__.startswith(("lightning.", "torch"))]
    names = {klass.__name__ for klass in ours}
    for klass in (Trainer, *ours):
        try:
            names |= set(inspect.signature(klass).parameters)
        except (TypeError, ValueError):
            continue
    return names


def _subclasses(klass: type) -> set[type]:
    direct: set[type] = set(klass.__subclasses__())
    return direct.union(*(_subclasses(child) for child in direct))
