"""Models from checkpoints: those of `lit-valuation fit`, and any LightningModule whose class the user names."""

from __future__ import annotations

import copy
import inspect
import pydoc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from lit_core.errors import RunFailure, UserError, reason_of
from lit_core.files.yaml_files import read_mapping
from lit_core.lightning.checkpoint import check_weights, load_checkpoint_file, read_checkpoint_file
from lit_core.lightning.checkpoint_module import CheckpointModule
from lit_core.lightning.foreign import vetted
from lit_core.lightning.hyperparameters import usable_hyperparameters
from lit_core.lightning.internals import CLASS_PATH, INSTANTIATOR
from lit_core.parser_messages import parser_sentence
from lit_core.references import resolved
from lit_core.screen import quoted
from lit_core.size_limit import sized_as
from lit_core.trust import is_own, note_typed
from lit_valuation.contract import FAULTS
from lit_valuation.task import SampleTask

#: What a user says of a model: its import path, a YAML file, or a mapping, with class_path and init_args.
Description = dict[str, str | dict | None] | str

_OURS = "lit_valuation.module.ClassifierTask"
#: Arguments of a task that its checkpoint has as plain values, since they come from the data.
_OF_DATA = ("classes", "input_shape", "target_mean", "target_scale")
_KEY = LightningModule.CHECKPOINT_HYPER_PARAMS_KEY


@dataclass(frozen=True)
class SavedModel:
    """A checkpoint, and by which class and arguments its model is built.

    Args:
        path: The checkpoint file.
        checkpoint: Its content.
        class_path: Import path of a LightningModule, or of a function that returns one.
        kept: Arguments of the class, as the checkpoint keeps them.
        given: Arguments that the user gives instead.
    """

    path: str | Path
    checkpoint: Mapping[str, Any]
    class_path: str
    kept: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    _parsed: dict[bool, tuple[ArgumentParser, Namespace]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def read(cls, path: str | Path, model: Description | None = None) -> SavedModel:
        """Read a checkpoint.

        Args:
            path: The checkpoint file.
            model: The class whose weights the checkpoint holds, if it does not tell so itself; arguments that are not
                given are those among the checkpoint's hyperparameters.

        Raises:
            UserError: If the file is not a checkpoint, nothing says how to build its model, or it names a class that
                must be trusted first.
        """
        if model is None:
            checkpoint = load_checkpoint_file(path)
            if _KEY not in checkpoint:
                raise UserError(
                    f"--ckpt_path is {path}, which does not describe its model; give a checkpoint of lit-valuation "
                    "fit, or name the class of your LightningModule by --model."
                )
            kept = checkpoint[_KEY]
            class_path = kept.get(CLASS_PATH) or _OURS
            kind = pydoc.locate(class_path)
            if not isinstance(kind, type) or (issubclass(kind, CheckpointModule) and not issubclass(kind, SampleTask)):
                what = "which cannot be imported" if kind is None else "which is not a model of samples"
                raise UserError(
                    f"--ckpt_path is {path}, which holds a {class_path}, {what}; give a checkpoint of lit-valuation "
                    "fit, or name the class of your LightningModule by --model."
                )
            return cls(path, checkpoint, class_path, _without_notes(kept))
        class_path, given = described(model).values()
        kind = _imported(class_path)
        checkpoint = read_checkpoint_file(path)
        kept = {name: value for name, value in checkpoint.get(_KEY, {}).items() if name not in given}
        if not is_own(checkpoint):
            kept = vetted({_KEY: kept}, path, "--ckpt_path", [kind])[_KEY]
        if kept.get(CLASS_PATH) and pydoc.locate(kept[CLASS_PATH]) is not kind:
            raise UserError(
                f"--model is {class_path}, but --ckpt_path is {path}, which holds a {kept[CLASS_PATH]}; name that "
                "class, or leave --model out."
            )
        return cls(path, checkpoint, class_path, _taken(kind, _without_notes(kept), checkpoint), given)

    def build(self, seed: int | None = None) -> LightningModule:
        """Return the model with new weights.

        Args:
            seed: Seed of the weights, for a class with an argument of this name; None leaves what the checkpoint has.

        Raises:
            UserError: If the class does not take the arguments, or fails.
        """
        seeded = seed is not None and "seed" in inspect.signature(_imported(self.class_path)).parameters
        try:
            with sized_as(self.checkpoint, self.path, "--ckpt_path"):
                parser, parsed = self._description(seeded)
                config = copy.deepcopy(parsed)
                if seeded:
                    config.module.init_args.seed = seed
                task: LightningModule = parser.instantiate(config).module
            if is_overridden("configure_model", task):
                task.configure_model()  # as Lightning does before it loads weights
        except (UserError, RunFailure):
            raise
        except FAULTS as error:
            reason, separator, remedy = parser_sentence(str(error), None, "model").rpartition("; ")
            raise UserError(self._refusal((reason if separator else remedy).rstrip("."))) from error
        return task

    def _description(self, seeded: bool) -> tuple[ArgumentParser, Namespace]:
        """Return the parser that builds the model, and its parsed arguments; they are parsed once for all seeds.

        Args:
            seeded: Whether ``seed`` is set before the model is built, in place of the checkpoint's.
        """
        if seeded not in self._parsed:
            taken = inspect.signature(_imported(self.class_path)).parameters
            known = {key: self.checkpoint[key] for key in _OF_DATA if key in self.checkpoint and key in taken}
            changes = {**self.given, **({"seed": 0} if seeded else {})}
            kept = usable_hyperparameters(resolved(self.kept), self.path, "--ckpt_path", [*known, *changes])
            arguments = copy.deepcopy({**kept, **known, **changes})
            parser = ArgumentParser(exit_on_error=False)
            parser.add_subclass_arguments(LightningModule, "module", fail_untyped=False)
            module = {"class_path": self.class_path, "dict_kwargs": arguments}
            self._parsed[seeded] = parser, parser.parse_object({"module": module})
        return self._parsed[seeded]

    def load(self) -> LightningModule:
        """Return the model with the checkpoint's weights, in evaluation mode.

        Raises:
            UserError: If it cannot be built, or the weights are those of another architecture.
        """
        task, weights = self.build(), self.checkpoint["state_dict"]
        if not isinstance(task, CheckpointModule):  # ours would note a resume
            task.on_load_checkpoint(dict(self.checkpoint))
        if task.strict_loading:
            check_weights(task, weights, self.path, "--ckpt_path")
        task.load_state_dict(weights, strict=task.strict_loading)
        return task.eval()

    def _refusal(self, reason: str) -> str:
        if self.class_path == _OURS and not self.given:
            return (
                f"--ckpt_path is {self.path}, whose description of the model is not one of lit-valuation ({reason}); "
                "give a checkpoint of lit-valuation fit, or name the class of your LightningModule by --model."
            )
        return (
            f"{self.class_path}, whose weights --ckpt_path {quoted(self.path)} holds, cannot be built ({reason}); give "
            f"its arguments, as in --model '{{class_path: {self.class_path}, init_args: {{NAME: VALUE}}}}'."
        )


def load_task(path: str | Path, model: Description | None = None) -> LightningModule:
    """Load the model of a checkpoint, in evaluation mode.

    Args:
        path: The checkpoint file.
        model: The class of the model; None for a checkpoint of ``lit-valuation fit``.

    Raises:
        UserError: If the file is not such a checkpoint, or its weights do not fit the model that it describes.
    """
    return SavedModel.read(path, model).load()


def described(model: Description) -> dict[str, Any]:
    """Return ``class_path`` and ``init_args`` of a model; since the user names the classes, checkpoints may do so too.

    Args:
        model: What the user says of the model.

    Raises:
        UserError: If it lacks a class path, or says something else.
    """
    where = f"--model {quoted(model)}" if isinstance(model, str) else "--model"
    if isinstance(model, str) and Path(model).suffix in (".yaml", ".yml"):
        model = read_mapping(Path(model), where)
    given: Mapping[str, Any] = {"class_path": model} if isinstance(model, str) else model
    path, arguments = given.get("class_path"), given.get("init_args") or {}
    other = sorted(map(str, given.keys() - {"class_path", "init_args"}))
    if not isinstance(path, str) or not isinstance(arguments, Mapping) or other:
        wrong = f"has {other[0]}" if other else "lacks a class_path" if path is None else f"is {dict(given)}"
        raise UserError(
            f"{where} {wrong}, but must have a class_path and may have init_args; write "
            "--model '{class_path: my_project.MyModule, init_args: {NAME: VALUE}}'."
        )
    found = {"class_path": path, "init_args": dict(arguments)}
    note_typed(found)
    return found


def _imported(class_path: str) -> Any:
    """Return the LightningModule, or the function that returns one, of an import path."""
    named = all(part.isidentifier() for part in class_path.split("."))
    try:
        found: Any = pydoc.locate(class_path) if named else None
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"--model is {class_path}, whose import fails ({reason_of(error)}); correct it.") from error
    if found is None:
        raise UserError(
            f"--model is {class_path}, which cannot be found; give the import path of a LightningModule, and put the "
            "folder of its file on PYTHONPATH."
        )
    if not callable(found) or (isinstance(found, type) and not issubclass(found, LightningModule)):
        raise UserError(
            f"--model is {class_path}, which is not a LightningModule; name one, or a function that returns one."
        )
    return found


def _without_notes(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters without the class and the function that built it, which LightningCLI notes."""
    return {name: value for name, value in kept.items() if name not in (CLASS_PATH, INSTANTIATOR)}


def _taken(kind: Any, kept: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return those hyperparameters of a checkpoint that a class takes, as Lightning gives them to it."""
    parameters = inspect.signature(kind).parameters
    whole = checkpoint.get(LightningModule.CHECKPOINT_HYPER_PARAMS_NAME)
    if isinstance(whole, str) and whole in parameters and parameters[whole].kind is not inspect.Parameter.VAR_KEYWORD:
        return {whole: dict(kept)}  # one argument holds all of them
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return kept
    return {name: value for name, value in kept.items() if name in parameters}
