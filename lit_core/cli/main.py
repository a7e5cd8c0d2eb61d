"""Entry point of the console commands: runs Lightning's commands and the packages' verbs, and prints errors."""

from __future__ import annotations

import inspect
import logging
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, auto_parser, set_parsing_settings
from lightning.fabric.utilities.seed import seed_everything

from lit_core import record
from lit_core.callbacks import Stopped
from lit_core.cli.arguments import (
    PARSER_MODE,
    TRUST,
    TRUST_ARGUMENT,
    Parser,
    accept_former_paths,
    configs_first,
    locate_configs,
    option,
    replace_former_paths,
    trust_given,
)
from lit_core.cli.configs import words_as_flag
from lit_core.cli.empty import refuse_empty
from lit_core.cli.entries import entry_sentence
from lit_core.cli.lit_cli import LitCLI
from lit_core.cli.messages import is_user_error, root_cause, sentence
from lit_core.cli.numbers import check_numbers
from lit_core.cli.parser_messages import check_keys
from lit_core.cli.ranks import is_further_rank, is_lost_peer, launched_rank, rank_zero_ends, watch_rank_zero
from lit_core.cli.run_folder import current_run_folder, discard_new_files, forget_run_folder
from lit_core.cli.show import paths_as_flags, show
from lit_core.cli.termination import termination
from lit_core.errors import FAILED, LEFT_OUT, OK, USER_ERROR, Terminated, UserError, did_you_mean
from lit_core.files.outputs import set_overwriting
from lit_core.files.yaml_files import parse_yaml
from lit_core.lightning.loggers import CSVLog, EventLog
from lit_core.references import as_typed
from lit_core.screen import on_screen, quoted, say
from lit_core.seeds import checked_seed
from lit_core.trust import note_typed

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


def run(
    program: str,
    commands: Callable[[list[str]], LitCLI],
    verbs: dict[str, Callable[..., Any]],
    args: Sequence[str] | None,
    like_fit: Mapping[str, Callable[..., Any]] | None = None,
) -> int:
    """Run a command line.

    Args:
        program: Name of the console script, for messages.
        commands: Runs ``fit``, ``validate``, ``test``, ``predict`` or a command of `like_fit`.
        verbs: The package's own commands: plain typed functions by name.
        args: The command line without the program's name; None takes the process's own.
        like_fit: Further commands of the package by name, with the arguments of ``fit``; None for none.

    Returns:
        The exit code: 0; 3 if it is done but for something that it names; 2 for a user's mistake; 1 for a failed run;
        130 or 143 for one that a signal stopped;
        141 if the reader of its output has left.
    """
    with termination():
        return _run(program, commands, verbs, list(sys.argv[1:] if args is None else args), like_fit)


def _run(
    program: str,
    commands: Callable[[list[str]], LitCLI],
    verbs: dict[str, Callable[..., Any]],
    args: list[str],
    like_fit: Mapping[str, Callable[..., Any]] | None,
) -> int:
    debug = "--debug" in args
    set_overwriting("--overwrite" in args)
    args = [arg for arg in args if arg not in ("--debug", "--overwrite")]
    own = {**verbs, **(like_fit or {})}
    _quiet()
    threading.excepthook = partial(_say_of_thread, program, debug)
    watch_rank_zero()
    record.begin(program, args)
    command = next((arg for arg in args if not arg.startswith("-")), None)
    code = OK
    try:
        if command in verbs:
            code = _run_verb(program, command, verbs[command], args[args.index(command) + 1 :])
        elif command in LitCLI.subcommands() or command in own:
            cli = commands(args)
            _closing_lines(program, cli)
        elif command is None:
            say(*_usage(program, own).split("\n"))
            return OK if not args or {"--help", "-h"} & set(args) else USER_ERROR
        else:
            known = [*LitCLI.subcommands(), *own]
            hint = did_you_mean(command, known)
            raise UserError(f"{command} is not a command of {program}.{hint} The commands are {', '.join(known)}.")
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
        _say(program, sentence(error, verbs.get(command or "")))
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
        return OK if is_further_rank() else 128 + signal.SIGTERM
    return 128 + signal.SIGINT


def _run_verb(program: str, name: str, function: Callable[..., Any], args: list[str]) -> int:
    printing = any(arg.partition("=")[0] == "--print_config" for arg in args)  # as null, not as unset
    set_parsing_settings(unset_sentinel=not printing)
    accept_former_paths()
    if "words" in inspect.signature(function).parameters:
        args = words_as_flag(args)
    if function is show:
        args = paths_as_flags(args)
    located = configs_first(trust_given(locate_configs(replace_former_paths(args))))
    try:
        parser = auto_parser(
            function,
            prog=f"{program} {name}",
            as_positional=False,
            parser_mode=PARSER_MODE,
            exit_on_error=False,
            parser_class=Parser,
            fail_untyped=False,
        )
        parser.add_argument(f"--{TRUST}", **TRUST_ARGUMENT)
        config = parser.parse_args(located)
        for key in ("config", TRUST):
            config.pop(key, None)
        check_numbers(config)
        refuse_empty(config, function)
        seed = config.get("seed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # defaults that are objects become texts
            dumped = parser.dump(config, skip_validation=True, skip_unset=False, format="yaml")
        typed = as_typed(parse_yaml(dumped, "The config"), getattr(parser, "typed", {}))
        check_keys(typed)
        note_typed(typed)
        record.set_arguments(typed, {"seed": seed or 0} if "seed" in config else {})
        # of what draws from the global generators, and of the parts of the verb that have no seed of their own
        seed_everything(checked_seed("seed", seed) if isinstance(seed, int) else 0, verbose=False)
        check = getattr(function, "check", None)
        if check is not None:
            check(**{name: config[name] for name in inspect.signature(check).parameters})
        return LEFT_OUT if function(**parser.instantiate(config)) == LEFT_OUT else OK
    except ArgumentError as error:
        if root_cause(error) is not error:
            raise
        raise UserError(entry_sentence(error, function, option(located, "--config", "-c"))) from error
    finally:
        set_parsing_settings(unset_sentinel=False)


def _usage(program: str, verbs: dict[str, Callable[..., Any]]) -> str:
    lines = [f"usage: {program} COMMAND [--help] [options]", "", "Lightning's commands:"]
    lines += [
        f"  {name:<10} {(getattr(_trainer_class(), name).__doc__ or '').strip().splitlines()[0]}"
        for name in LitCLI.subcommands()
    ]
    lines += ["", "Its own:"]
    lines += [f"  {name:<10} {(verb.__doc__ or '').strip().splitlines()[0]}" for name, verb in verbs.items()]
    return "\n".join(
        [
            *lines,
            "",
            "Each has --help and --print_config; --debug shows the traceback of an error.",
            "--overwrite replaces a file that is there, which is refused otherwise.",
        ]
    )


def _trainer_class() -> type:
    from lightning.pytorch import Trainer

    return Trainer


def _closing_lines(program: str, cli: LitCLI) -> None:
    if cli.run_folder is None or not cli.trainer.is_global_zero:
        return
    folder = _relative(cli.run_folder)
    if cli.subcommand in ("validate", "test"):
        say(*score_table({key: float(value) for key, value in cli.trainer.callback_metrics.items()}).split("\n"))
    say("", f"Run folder   {folder}")
    last = cli.run_folder / "checkpoints" / "last.ckpt"
    if cli.subcommand == "fit" and last.exists():
        say(f"Test it      {program} test --ckpt_path {quoted(_relative(last))}")
        if getattr(cli.model, "is_trained", True):
            say(f"Resume it    {program} fit --ckpt_path {quoted(_relative(last))} --trainer.max_steps STEPS")
    loggers = cli.trainer.loggers
    if any(isinstance(logger, EventLog) for logger in loggers):
        say(f"Look at it   tensorboard --logdir {quoted(folder)}")
    for logger in loggers:
        if not isinstance(logger, EventLog | CSVLog):
            where = f" in {_relative(Path(logger.save_dir))}" if logger.save_dir else ""
            say(f"Logged too   {type(logger).__name__}{where}")


def score_table(metrics: Mapping[str, float]) -> str:
    """Return a table of the metrics ``{stage}/{source}/{metric}``: a row per source, a column per metric.

    Args:
        metrics: Values by key; keys of another form are left out.

    Example:
        >>> print(score_table({"test/austen/loss": 3.25, "test/stdlib/loss": 2.5, "test/austen/router/mri": 0.5}))
        <BLANKLINE>
        test     loss
        austen   3.25
        stdlib    2.5
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for key, value in metrics.items():
        if key.count("/") == 2:
            stage, source, metric = key.split("/")
            rows.setdefault((stage, source), {})[metric] = value
    columns = sorted({metric for row in rows.values() for metric in row})
    if not columns:
        return ""
    lines = [[next(iter(rows))[0], *columns]]
    for (_, source), row in rows.items():
        lines.append([source, *(f"{row[name]:.4g}" if name in row else "-" for name in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0] + 1), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join(["", *map(on_screen, text)])


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
    return _relative(last) if last is not None and last.exists() else None


def _relative(path: Path) -> Path:
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


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
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch"):
        logger = logging.getLogger(name)
        if not any(getattr(item, "__name__", "") == "_no_advert" for item in logger.filters):
            logger.addFilter(_no_advert)


def _no_advert(record: logging.LogRecord) -> bool:
    return "💡" not in record.getMessage()
