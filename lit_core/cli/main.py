"""Entry point of the console commands: runs Lightning's commands and the packages' verbs, and prints errors."""

from __future__ import annotations

import logging
import os
import re
import select
import signal
import sys
import textwrap
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lit_core
from lit_core import record
from lit_core.cli.arguments import locate_configs, replace_former_paths
from lit_core.cli.messages import is_user_error, root_cause, sentence
from lit_core.cli.ranks import is_further_rank, is_lost_peer, launched_rank, rank_zero_ends, watch_rank_zero
from lit_core.cli.run_folder import current_run_folder, discard_new_files, forget_run_folder, relative
from lit_core.cli.termination import termination
from lit_core.cli.verb import LIGHTNING, Verb, purpose
from lit_core.errors import FAILED, OK, USER_ERROR, Stopped, Terminated, UserError, did_you_mean
from lit_core.files.outputs import command_outputs
from lit_core.screen import clear_bars, quoted, say

if TYPE_CHECKING:
    from lit_core.cli.lit_cli import LitCLI

#: Warnings of libraries that a user of the command line cannot act on.
_NOISE = (
    ".*LightningCLI's args parameter.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",  # of an epoch; we log by optimizer steps, over epochs
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    "(?s).*JsonargparseDeprecationWarning.*",
    "(?s).*was deprecated in v4.*",
)
#: Messages of Lightning that advertise, or tell what is not there or what our commands have set.
_ADVERT = re.compile(
    "💡|^(GPU|TPU) available: False|^(Trainer already configured with model summary|Seed set to|Restoring states from) "
)


def run(
    program: str,
    commands: Callable[[list[str]], LitCLI],
    verbs: Mapping[str, Callable[..., Any] | Verb],
    args: Sequence[str] | None,
    like_fit: Mapping[str, Callable[..., Any] | Verb] | None = None,
) -> int:
    """Run a command line.

    Args:
        program: Name of the console script, for messages.
        commands: Runs ``fit``, ``validate``, ``test``, ``predict`` or a command of `like_fit`.
        verbs: The package's own commands by name: plain typed functions, or where to find them.
        args: The command line without the program's name; None takes the process's own.
        like_fit: Further commands of the package by name, with the arguments of ``fit``; None for none.

    Returns:
        The exit code: 0; 3 if it is done but for something that it names; 2 for a user's mistake; 1 for a failed run;
        130 or 143 for one that a signal stopped;
        141 if the reader of its output has left.
    """
    args = list(sys.argv[1:] if args is None else args)
    with termination(), command_outputs("--overwrite" in args, launched_rank() == "0"):
        return _run(program, commands, verbs, args, like_fit)


def _run(
    program: str,
    commands: Callable[[list[str]], LitCLI],
    verbs: Mapping[str, Callable[..., Any] | Verb],
    args: list[str],
    like_fit: Mapping[str, Callable[..., Any] | Verb] | None,
) -> int:
    debug = "--debug" in args
    args = [arg for arg in args if arg not in ("--debug", "--overwrite")]
    own = {**verbs, **(like_fit or {})}
    if "_ARGCOMPLETE" in os.environ:  # the Tab key
        from lit_core.cli.completion import complete

        complete(program, own)
    _quiet()
    threading.excepthook = partial(_say_of_thread, program, debug)
    watch_rank_zero()
    record.begin(program, args)
    command = next((arg for arg in args if not arg.startswith("-")), None)
    code, function = OK, None
    try:
        if command is None:
            return _without_command(program, own, args)
        if command not in LIGHTNING and command not in own:
            known = [*LIGHTNING, *own]
            hint = did_you_mean(command, known)
            raise UserError(f"{command} is not a command of {program}.{hint} The commands are {', '.join(known)}.")
        locate_configs(replace_former_paths(args))  # before anything heavy is imported
        if command in verbs:
            from lit_core.cli.run_verb import function_of, run_verb

            rest = args[args.index(command) + 1 :]
            function = function_of(verbs[command], rest)
            code = run_verb(program, command, function, rest)
        else:
            cli = commands(args)

            from lit_core.cli.closing import closing_lines

            closing_lines(program, cli)
        sys.stdout.flush()  # here, where a reader that has left, such as `head`, is no error
        return code
    except SystemExit as error:  # --help and --print_config, or Lightning's way out at Ctrl-C
        if isinstance(error.__context__, KeyboardInterrupt):
            return _interrupted(program, error.__context__)
        return error.code if isinstance(error.code, int) else OK if error.code is None else FAILED
    except Stopped as error:
        if error.saved:
            _say(program, f"stopped and saved; {_resume_sentence(program)}")
        else:
            _say(program, "stopped; nothing was saved, since `trainer.enable_checkpointing` is false.")
        return OK if is_further_rank() else 128 + error.signum
    except KeyboardInterrupt as error:
        return _interrupted(program, error)
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and _reader_has_left():
            return 128 + signal.SIGPIPE
        if debug:
            say(*traceback.format_exc().rstrip().split("\n"), error=True)
        cause = root_cause(error)
        rank = launched_rank()
        if rank != "0":  # reports only what rank 0 does not
            reported = rank_zero_ends() if is_further_rank() else is_user_error(cause)
            if not reported and not is_lost_peer(cause):
                say(f"{program}, rank {rank}: {sentence(error)}", error=True)
            return USER_ERROR if is_user_error(cause) else FAILED
        _say(program, sentence(error, function))
        discard_new_files()
        if is_user_error(cause):
            return USER_ERROR
        if _last_checkpoint() is not None:
            _say(program, f"the last checkpoint is kept; {_resume_sentence(program)}")
        if not debug:
            _say(program, "add --debug for the traceback.")
        return FAILED
    finally:
        forget_run_folder()


def _interrupted(program: str, error: KeyboardInterrupt) -> int:
    _say(program, "interrupted.")
    discard_new_files()
    if isinstance(error, Terminated):
        return OK if is_further_rank() else 128 + error.signum
    return 128 + signal.SIGINT


def _without_command(program: str, own: Mapping[str, Callable[..., Any] | Verb], args: list[str]) -> int:
    """Answer a command line of flags only."""
    if "--version" in args:
        say(
            f"{program} {lit_core.__version__} from {Path(lit_core.__file__).parent}"
        )  # a clone hides what is installed
        return OK
    say(*_usage(program, own).split("\n"))
    return OK if not args or {"--help", "-h"} & set(args) else USER_ERROR


def _usage(program: str, own: Mapping[str, Callable[..., Any] | Verb]) -> str:
    lines = [f"usage: {program} COMMAND [--help] [options]", "", "Lightning's commands:"]
    lines += [_described(name, text) for name, text in LIGHTNING.items()]
    lines += ["", "Its own:"]
    lines += [_described(name, purpose(verb)) for name, verb in own.items()]
    return "\n".join(
        [
            *lines,
            "",
            "Each has --help and --print_config; --debug shows the traceback of an error.",
            "--overwrite replaces a file that is there, which is refused otherwise.",
            "--version prints the version.",
        ]
    )


def _described(name: str, text: str) -> str:
    """Return the name of a command and what it does, on lines of at most 80 columns."""
    return textwrap.fill(f"{name:<12}{text}", 80, initial_indent="  ", subsequent_indent=" " * 14)


def _reader_has_left() -> bool:
    """Tell whether nobody reads our output any more; if so, let Python end without saying it again."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    has_left = any(event & select.POLLERR for _, event in poll.poll(0))
    if has_left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return has_left


def _resume_sentence(program: str) -> str:
    return f"resume with: {program} fit --ckpt_path {quoted(_last_checkpoint())}"


def _last_checkpoint() -> Path | None:
    folder = current_run_folder()
    last = folder / "checkpoints" / "last.ckpt" if folder else None
    return relative(last) if last is not None and last.exists() else None


def _say(program: str, text: str) -> None:
    rank = launched_rank()
    if rank == "0":
        say(f"{program}: {text}", error=True)


def _say_of_thread(program: str, debug: bool, failed: threading.ExceptHookArgs) -> None:
    """Say why a thread ended, such as the one that writes TensorBoard's events, in place of its traceback."""
    if failed.exc_value is None:
        return
    if debug:
        lines = "".join(traceback.format_exception(failed.exc_value)).rstrip().split("\n")
        say(*lines, error=True)
    name = failed.thread.name if failed.thread else "ended"
    say(f"{program}: the thread {name} ended. {sentence(failed.exc_value)}", error=True)


def _quiet() -> None:
    """Suppress advertisements, and warnings of libraries that a user cannot act on."""
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch", "lightning.fabric.utilities.seed"):
        logger = logging.getLogger(name)
        if not any(getattr(item, "__name__", "") == "_no_advert" for item in logger.filters):
            logger.addFilter(_no_advert)


def _no_advert(record: logging.LogRecord) -> bool:
    shown = not _ADVERT.search(record.getMessage())
    if shown:
        clear_bars()
    return shown
