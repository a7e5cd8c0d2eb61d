"""The config in a checkpoint, which is inserted before all other arguments as if it were typed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lit_core.cli.arguments import OWN_KEYS, given, option, read_config
from lit_core.cli.empty import check_name
from lit_core.errors import UserError
from lit_core.files.yaml_files import parse_yaml
from lit_core.lightning.checkpoint import checkpoint_facts
from lit_core.lightning.foreign import LEFT_OUT
from lit_core.lightning.hyperparameters import usable_hyperparameters
from lit_core.lightning.internals import CLASS_PATH, INSTANTIATOR
from lit_core.moved_names import current_arguments, current_paths
from lit_core.origin import unkept
from lit_core.references import settled
from lit_core.screen import rank_zero_warn

#: Trainer keys that an evaluation takes from the checkpoint's config. It takes devices, loggers and limits from the
#: command line.
_TRAINER_KEYS_OF_EVALUATION = ("callbacks", "precision")
#: Top-level keys that it takes.
_KEYS_OF_EVALUATION = ("model", "data", "seed_everything")


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
    for argument, path in (("--ckpt_path", ckpt_path), ("--branch_from", branch)):
        if path == "":
            raise UserError(f"{argument} is empty; give a value, or leave it out.")
        check_name(argument, path or "")
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
    return {key: value for key, value in source.items() if value is not None and key not in OWN_KEYS}


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
        config = dict(checkpoint["config"])
        typed = config["model"]
        if isinstance(typed, dict) and isinstance(typed.get("init_args"), dict):
            config["model"] = {**typed, "init_args": current_arguments(typed["init_args"])}
        return config, left_out
    config = {}
    model, data = (dict(checkpoint.get(key, {})) for key in ("hyper_parameters", "datamodule_hyper_parameters"))
    if model:
        parameters = usable_hyperparameters(current_arguments(model), path, argument, _given_to("model", args))
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
