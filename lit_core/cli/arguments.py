"""Arguments before jsonargparse parses them: configs are located, and a checkpoint's config is inserted first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from lit_core.cli.run_folder import find_config
from lit_core.errors import UserError
from lit_core.files.yaml_files import check_size, parse_yaml, read_mapping
from lit_core.lightning.checkpoint import checkpoint_facts
from lit_core.lightning.foreign import LEFT_OUT
from lit_core.lightning.hyperparameters import usable_hyperparameters
from lit_core.lightning.internals import CLASS_PATH, INSTANTIATOR
from lit_core.moved_names import current_path, current_paths
from lit_core.origin import unkept
from lit_core.record import hide_secrets
from lit_core.references import below, settled
from lit_core.screen import rank_zero_warn
from lit_core.trust import trust

#: Mode in which command lines and configs are parsed: ``${...}`` is resolved after all of them are merged.
PARSER_MODE = "omegaconf+"
#: Trainer keys that an evaluation takes from the checkpoint's config. It takes devices, loggers and limits from the
#: command line.
_TRAINER_KEYS_OF_EVALUATION = ("callbacks", "precision")
#: Top-level keys that it takes.
_KEYS_OF_EVALUATION = ("model", "data", "seed_everything")
#: What jsonargparse writes for an object that is the default of an argument.
_INSTANCE = "Unable to serialize instance "
#: Key of a config, and flag, of classes that files of others may name.
TRUST = "trust"
TRUST_ARGUMENT: dict[str, Any] = {
    "type": str | list[str] | None,
    "default": None,
    "help": "Class that checkpoints of others may name; to be repeated. Its module's code is run.",
}
#: Keys that belong to one command line, not to the run.
_OWN_KEYS = ("config", "ckpt_path", "branch_from", "run", TRUST)


class Parser(LightningArgumentParser):
    """Parser that accepts options by their full names only, including options of the classes that a config names."""

    def __init__(self, *args: Any, allow_abbrev: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=allow_abbrev, **kwargs)
        self.typed: dict[str, Any] = {}

    def dump(self, cfg: Any, *args: Any, **kwargs: Any) -> str:
        """Return a config as text, also for jsonargparse, which resolves the references in what this returns.

        References are paths from the top of a command's own config, while jsonargparse resolves those of all commands
        together. The command's config with its references is kept in ``typed``.

        A default that is an object, such as a device, is left out, so that it holds again when the text is read.
        """
        text = str(super().dump(_plain(cfg), *args, **kwargs))
        if _INSTANCE in text:
            text = yaml.safe_dump(
                _without_instances(parse_yaml(text, "The config")), sort_keys=False, allow_unicode=True
            )
        command = cfg.get("subcommand")
        if "${" not in text:
            return text
        if command is None:  # of a verb, whose references are from the top
            self.typed = parse_yaml(text, "The config")
            return text
        self.typed = parse_yaml(text, "The config")[command]
        return yaml.safe_dump(below(self.typed, command), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Return a config with the values of enumerations, which are the defaults of some arguments, as text."""
    if isinstance(value, Namespace):
        return Namespace(**{key: _plain(item) for key, item in vars(value).items()})
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, str) and isinstance(value, Enum) else value


def _without_instances(value: Any) -> Any:
    """Return plain values without the entries that jsonargparse could not write."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not (isinstance(item, str) and item.startswith(_INSTANCE))}
        return {key: _without_instances(item) for key, item in kept.items()}
    return [_without_instances(item) for item in value] if isinstance(value, list) else value


@cache
def accept_former_paths() -> None:
    """Make the parser replace former import paths in configs and in YAML values by the present ones."""
    ArgumentParser(parser_mode=PARSER_MODE).parse_string("{}")  # the loader of a mode is made when it is first used
    load = get_loader(PARSER_MODE)

    def bounded_load(text: str) -> Any:
        check_size(text)
        return current_paths(load(text))

    set_loader(PARSER_MODE, bounded_load, exceptions=(yaml.YAMLError,))


def replace_former_paths(args: list[str]) -> list[str]:
    """Return the command line with each value that is a former import path replaced by the present one."""
    replaced = []
    for arg in args:
        name, equals, value = arg.rpartition("=")
        replaced.append(f"{name}{equals}{current_path(value)}")
    return replaced


def option(args: list[str], *names: str) -> list[str]:
    """Return all values that a command line gives for an option, in order.

    Args:
        args: The command line.
        names: The option's names, for example ``--config``.
    """
    values = []
    for index, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in names:
            values.append(value if equals else args[index + 1] if index + 1 < len(args) else "")
    return values


def locate_configs(args: list[str]) -> list[str]:
    """Return the command line with each config replaced by its path, below the working directory or the packaged one.

    Raises:
        UserError: If the file does not exist, or is not a mapping of keys to values.
    """
    located = list(args)
    for index, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in ("--config", "-c"):
            if not equals and (index + 1 == len(args) or args[index + 1].startswith("--")):
                raise UserError(f"{name} has no value; give the path of a config file after it.")
            path = find_config(value if equals else args[index + 1])
            read_config(path)
            if equals:
                located[index] = f"{name}={path}"
            else:
                located[index + 1] = path
    return located


def configs_first(args: list[str], start: int = 0) -> list[str]:
    """Return the command line with its configs before its flags, which win over them wherever they stand.

    Args:
        args: The command line with its configs located.
        start: Index of the first argument that may move.
    """
    configs: list[str] = []
    flags: list[str] = []
    rest = iter(args[start:])
    for arg in rest:
        if arg in ("--config", "-c"):
            configs += [arg, next(rest)]
        else:
            (configs if arg.startswith(("--config=", "-c=")) else flags).append(arg)
    return [*args[:start], *configs, *flags]


def secrets_as_references(args: list[str]) -> list[str]:
    """Return the command line with values of secret variables, which a shell has put there, as references to these.

    Args:
        args: The command line with its configs located; configs, checkpoints and the name of the run, which are read
            before references are resolved, are left as they are.
    """
    kept = option(args, "-c", *(f"--{key}" for key in _OWN_KEYS))
    return [arg if arg.partition("=")[2] in kept or arg in kept else hide_secrets(arg) for arg in args]


def trust_given(args: list[str]) -> list[str]:
    """Trust the classes that the user names, by ``--trust`` or under ``trust`` in a config; return the other arguments.

    Args:
        args: The command line with its configs located.
    """
    left: list[str] = []
    for arg in args:
        if left and left[-1] == "--trust":
            trust(arg)
            left.pop()
        elif arg.startswith("--trust="):
            trust(arg.partition("=")[2])
        else:
            left.append(arg)
    for path in option(args, "--config", "-c"):
        named = read_config(path).get(TRUST) or []
        trust(*([named] if isinstance(named, str) else map(str, named)))
    return left


def given(args: list[str], key: str) -> str | None:
    """Return the value that the user gives for a top-level key: by flag, or in the last config with it; else None."""
    flags = option(args, f"--{key}")
    if flags:
        return flags[-1]
    for path in reversed(option(args, "--config", "-c")):
        content = read_config(path)
        if content.get(key):
            return str(content[key])
    return None


def read_config(path: str) -> dict[Any, Any]:
    """Return the content of a config file.

    Args:
        path: The file.

    Raises:
        UserError: If it is not valid YAML, not a mapping of keys to values, or sets a key twice.
    """
    return read_mapping(Path(path), f"--config {path}")


def checkpoint_config(args: list[str], command: str, link_targets: list[str], model_class: str) -> dict[str, Any]:
    """Return the config that a checkpoint provides as defaults; whatever the user gives overrides it.

    Args:
        args: The command line with its configs located.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        link_targets: Keys that are computed from others and can't be given.
        model_class: Import path of the model of a checkpoint that does not name its class.

    Returns:
        The config of the whole run for a resume; of model, data, callbacks, precision and seed for an evaluation; of
        the model for a run that branches from the checkpoint. Empty without a checkpoint.

    Raises:
        UserError: If the checkpoint cannot be read, or the flags contradict each other.
    """
    ckpt_path, branch = given(args, "ckpt_path"), given(args, "branch_from")
    if branch and command != "fit":
        raise UserError(
            f"--branch_from starts a training run and cannot be used with {command}; give --ckpt_path instead."
        )
    if branch and ckpt_path:
        raise UserError("--ckpt_path resumes a run and --branch_from starts a new one; give one of the two.")
    if branch:
        config, left_out = _run_config(branch, "--branch_from", args, model_class)
        source = {"model": config.get("model")}
    elif ckpt_path and ckpt_path not in ("last", "best", "hpc"):
        source, left_out = _run_config(ckpt_path, "--ckpt_path", args, model_class)
        if command != "fit":
            source = settled(source, "trainer")
            trainer = {key: source.get("trainer", {}).get(key) for key in _TRAINER_KEYS_OF_EVALUATION}
            source = {key: source.get(key) for key in _KEYS_OF_EVALUATION} | {"trainer": trainer}
    else:
        return {}
    for target in link_targets:
        _delete(source, target.split("."))
    _report_left_out(source, left_out, args, branch or ckpt_path or "")
    trainer = source.get("trainer") or {}
    for key in ("callbacks", "logger"):
        if isinstance(trainer.get(key), list):
            trainer = {**trainer, key: _without(trainer[key], _appended(args, key))}
            source["trainer"] = trainer
    return {key: value for key, value in source.items() if value is not None and key not in _OWN_KEYS}


def _appended(args: list[str], key: str) -> list[Any]:
    """Return the callbacks or loggers that the command line appends, such as by ``callbacks+``."""
    appended = []
    for value in option(args, f"--trainer.{key}+"):
        with suppress(UserError):  # which the parser refuses
            appended.append(parse_yaml(value, f"--trainer.{key}+"))
    for path in option(args, "--config", "-c"):
        trainer = read_config(path).get("trainer")
        appended.append(trainer.get(f"{key}+") if isinstance(trainer, dict) else None)
    return [entry for entries in appended if entries for entry in (entries if isinstance(entries, list) else [entries])]


def _without(parts: list[Any], appended: list[Any]) -> list[Any]:
    """Return a checkpoint's callbacks or loggers without those that the command line of a resume appends again."""
    left = list(parts)
    for entry in appended:
        same = [position for position, former in enumerate(left) if _class_name(former) == _class_name(entry)]
        if same:
            del left[same[-1]]
    return left


def _class_name(part: Any) -> str:
    path = part.get("class_path") if isinstance(part, dict) else part
    return str(path).rpartition(".")[2]


def insert_config(args: list[str], command: str, config: dict[str, Any]) -> list[str]:
    """Return the command line with a config directly after the command, so that all other arguments override it."""
    if not config:
        return args
    position = args.index(command) + 1
    return [*args[:position], "--config", json.dumps(config), *args[position:]]


def _report_left_out(source: dict[str, Any], left_out: Mapping[str, Any], args: list[str], path: str) -> None:
    """Refuse a checkpoint of somebody else whose data only the user can place; tell what else of it does not count."""
    unused = {key: value for key, value in left_out.items() if source.get(key.partition(".")[0])}
    for key, value in unused.items():
        name = key.rpartition(".")[2]
        if key.startswith("data.") and name not in _given_to("data", args):
            raise UserError(
                f"{path} was not written by you, and the place that its `{key}` names does not count ({value!r}); add "
                f"--data.{name} to say where the data are."
            )
    others = [key for key in unused if not key.startswith("data.") and _is_evaluated(source, key)]
    if others:
        rank_zero_warn(f"{path} was not written by you; its {', '.join(others)} do not count. Type what is to hold.")


def _is_evaluated(source: dict[str, Any], key: str) -> bool:
    """Tell whether a trainer's key is among those that the command takes from the checkpoint."""
    parts = key.split(".")
    return parts[1] in _TRAINER_KEYS_OF_EVALUATION or "max_steps" in source["trainer"]


def _run_config(
    path: str, argument: str, args: list[str], model_class: str
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the config in a checkpoint, and what of it does not count.

    Of a run without a config, its hyperparameters of model and data are returned.
    """
    checkpoint = checkpoint_facts(path, argument)
    left_out = checkpoint.get(LEFT_OUT, {})
    if "model" in checkpoint.get("config", {}):
        return dict(checkpoint["config"]), left_out
    config = {}
    model, data = (dict(checkpoint.get(key, {})) for key in ("hyper_parameters", "datamodule_hyper_parameters"))
    if model:
        parameters = usable_hyperparameters(model, path, argument, _given_to("model", args))
        config["model"] = _as_config({CLASS_PATH: model_class, **parameters})
    if CLASS_PATH in data and not any(unkept(data)):
        config["data"] = _as_config(data)
    of_data = "datamodule_hyper_parameters."
    return config, {key.replace(of_data, "data.init_args."): value for key, value in left_out.items()}


def model_of(path: str, args: list[str], links: list[str], model_class: str) -> dict[str, Any]:
    """Return class path and arguments of the model in a checkpoint; nothing if the checkpoint keeps none.

    Args:
        path: The checkpoint.
        args: The command line.
        links: Keys of arguments that are computed, which are left out.
        model_class: Import path of the class, where the checkpoint does not name it.

    Raises:
        UserError: If the checkpoint cannot be read, or does not say how to build an argument that is not typed.
    """
    kept = current_paths(dict(checkpoint_facts(path, "--ckpt_path").get("hyper_parameters", {})))
    if not kept:
        return {}
    parameters = usable_hyperparameters(kept, path, "--ckpt_path", _given_to("model", args))
    model = _as_config({CLASS_PATH: model_class, **parameters})
    for link in links:
        _delete(model["init_args"], link.removeprefix("model.").removeprefix("init_args.").split("."))
    return model


def _as_config(parameters: dict[str, Any]) -> dict[str, Any]:
    init_args = {key: value for key, value in parameters.items() if key not in (CLASS_PATH, INSTANTIATOR)}
    return {"class_path": parameters[CLASS_PATH], "init_args": init_args}


def _given_to(part: str, args: list[str]) -> set[str]:
    """Return the names of the arguments of model or data that the command line gives, by flag or in a config."""
    parts = [read_config(path).get(part) for path in option(args, "--config", "-c")]
    init_args = [node.get("init_args") for node in parts if isinstance(node, dict)]
    names = {str(name) for given in init_args if isinstance(given, dict) for name in given}
    begin = f"--{part}."
    flags = [arg.removeprefix(begin).removeprefix("init_args.") for arg in args if arg.startswith(begin)]
    return names | {flag.partition("=")[0].partition(".")[0] for flag in flags}


def _delete(tree: Any, keys: list[str]) -> None:
    for key in keys[:-1]:
        if not isinstance(tree, dict):
            return
        tree = tree.get(key)
    if isinstance(tree, dict):
        tree.pop(keys[-1], None)
