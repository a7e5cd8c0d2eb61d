"""`CheckpointModule`, the base of modules that a checkpoint says how to build again."""

from __future__ import annotations

import inspect
import io
import pydoc
import zipfile
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import torch
from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, LightningModule

from lit_core.errors import UserError, did_you_mean
from lit_core.files.formats import stamp
from lit_core.files.json_files import checked
from lit_core.lightning.checkpoint import check_version, check_written
from lit_core.lightning.foreign import vetted
from lit_core.lightning.hyperparameters import KeepsHyperparameters, usable_hyperparameters
from lit_core.lightning.internals import CLASS_PATH, as_built_by_cli, trainer_of, unwrapped
from lit_core.lightning.python_record import PythonRecord
from lit_core.lightning.same_function import check_same_function
from lit_core.moved_names import current_arguments, current_paths
from lit_core.origin import described
from lit_core.parser_messages import parser_sentence
from lit_core.record import KEY, note_input
from lit_core.references import resolved
from lit_core.size_limit import sized_as
from lit_core.trust import is_own, sign

#: Arguments of Lightning's ``load_from_checkpoint`` itself; others are those of the module.
_OF_LOADING = inspect.signature(LightningModule.load_from_checkpoint).parameters.keys()


class CheckpointModule(KeepsHyperparameters, LightningModule):
    """A LightningModule whose checkpoints say as plain data how it was built, and that is built again from them.

    Former import paths in a checkpoint are replaced by the present ones.
    Hyperparameters that refer to environment variables take their present values.
    """

    def __init__(self) -> None:
        super().__init__()
        self._record = PythonRecord()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add version, record and signature, and describe what a data module of the user saved of its arguments.

        Under our command line the record is that of the command.
        """
        checkpoint.update(stamp("litshift-checkpoint"))
        data = LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY
        if data in checkpoint:
            checkpoint[data] = {
                name: value if _is_readable(value) else described(value) for name, value in checkpoint[data].items()
            }
        trainer = trainer_of(self)
        if trainer is not None and trainer.is_global_zero and KEY not in checkpoint:
            checkpoint[KEY] = self._record.of(trainer, self, checkpoint)
        sign(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the history of the checkpoint, and compare its network's arguments with those of this one.

        Raises:
            UserError: If a run is resumed with arguments by which the network computes something else.
        """
        self._record.note_resumed(checkpoint)
        self._check_function(checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY) or {})

    def plain_arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor as a checkpoint has them."""
        return {name: described(value) for name, value in self.hparams.items()}

    def function_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return those arguments on which the network's function depends, besides weights; none unless overridden.

        Args:
            arguments: Arguments of the constructor as plain data, of this module or of a checkpoint.

        Returns:
            The arguments by dotted names, as `check_same_function` compares them.
        """
        return {}

    def _check_function(self, saved: Mapping[str, Any]) -> None:
        then = current_arguments(current_paths(dict(saved)))
        check_same_function(self, self.function_arguments(self.plain_arguments()), self.function_arguments(then))

    def on_fit_start(self) -> None:
        """Begin the record of a training."""
        self._record.begin()

    def weights_to_start_from(self, state: dict[str, Any], subject: str) -> dict[str, Any]:
        """Return the weights that a new run begins with, of those of the checkpoint that it branches from.

        Args:
            state: Tensors of the checkpoint by name.
            subject: Start of an error message: the argument and its value.
        """
        return state

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        """Rebuild a module from its checkpoint.

        Args:
            checkpoint_path: The file.
            args: Those of Lightning's method.
            options: Those of Lightning's method, and arguments of the module that replace the checkpoint's.

        Returns:
            The module, with the checkpoint's weights; of the class that was saved if it is derived from this one.

        Raises:
            UserError: If the checkpoint does not say how to build an argument, and none is given instead, or if the
                class has no such argument.
        """
        checkpoint = content_to_build(cls, checkpoint_path, options)
        if isinstance(checkpoint_path, str | Path):
            note_input(checkpoint_path, step=checkpoint.get("global_step"))
        saved = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_KEY) or {}
        kept = current_arguments(current_paths(dict(saved)))
        usable = usable_hyperparameters(resolved(kept), checkpoint_path, "checkpoint_path", options)
        kind = pydoc.locate(str(kept.get(CLASS_PATH)))
        if not isinstance(kind, type) or not issubclass(kind, cls):
            if kept.get(CLASS_PATH):
                raise UserError(
                    f"checkpoint_path is {checkpoint_path}, which holds a {kept[CLASS_PATH]}, and that is no "
                    f"{cls.__name__}{' that can be imported' if kind is None else ''}; load it by its own class."
                )
            kind = cls
        given = {key: described(value) for key, value in options.items() if key not in _OF_LOADING}
        if kept:
            _check_arguments(kind, checkpoint_path, usable, given)
        options = {key: value for key, value in usable.items() if value != saved[key]} | options
        # the parser makes objects of the arguments that can't be described again
        limited = sized_as(checkpoint, checkpoint_path, "checkpoint_path")
        with limited, as_built_by_cli(kept | given) if kept else nullcontext():
            try:
                load = unwrapped(super(CheckpointModule, kind).load_from_checkpoint)
                made: Any = load(kind, checkpoint_path, *args, **options)
            except ArgumentError as error:
                reason = parser_sentence(str(error).replace('key "module.', 'key "'), None).rstrip(".")
                raise UserError(
                    f"checkpoint_path is {checkpoint_path}, whose arguments build no {kind.__name__} ({reason}); give "
                    "what is wrong or lacks, as in load_from_checkpoint(path, NAME=...)."
                ) from error
        if isinstance(checkpoint_path, str | Path):
            made._record.note_loaded(checkpoint_path, checkpoint)
        if options:  # which Lightning has put in place of the checkpoint's when the module was given it
            made._check_function(kept)
        return made


def _check_arguments(kind: type, path: Any, kept: Collection[str], given: Collection[str]) -> None:
    """Refuse what a class does not take, which Lightning leaves out, and what it lacks, which is None to the parser."""
    taken = inspect.signature(kind).parameters
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    handed_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    for name in given:
        if name not in taken and not handed_on:
            raise UserError(f"{name} is not an argument of {kind.__name__}.{did_you_mean(name, taken)}")
    for name, parameter in taken.items():
        needed = parameter.default is parameter.empty and parameter.kind not in several
        if needed and name not in kept and name not in given:
            raise UserError(
                f"checkpoint_path is {path}, which does not hold `{name}`, an argument of {kind.__name__}; give it by "
                f"load_from_checkpoint(path, {name}=...)."
            )


def content_to_build(kind: Any, source: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a checkpoint from which ``load_from_checkpoint`` is about to build a class.

    Args:
        kind: The class.
        source: The file, an address, or an open file, whose position stays.
        options: Arguments of the class that replace the checkpoint's, and ``weights_only``.

    Raises:
        UserError: If the checkpoint names a class that must be trusted first.
    """
    checkpoint = _content(source, options.get("weights_only"))
    check_version(checkpoint, source)
    key = kind.CHECKPOINT_HYPER_PARAMS_KEY
    saved = checkpoint.get(key) or {}
    checked(dict[str, Any], saved, f"checkpoint_path is {source}", "give another checkpoint", key)
    if not is_own(checkpoint):
        parameters = current_paths(dict(saved))
        used = {name: value for name, value in parameters.items() if name not in options}
        vetted({key: used}, source, "checkpoint_path", [kind])
    return checkpoint


def _is_readable(value: Any) -> bool:
    """Tell whether a value in a checkpoint is read without executing code from it."""
    try:
        torch.save(value, file := io.BytesIO())
        torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    except Exception:  # whatever a foreign object raises when it is pickled
        return False
    return True


def _content(source: Any, weights_only: bool | None) -> dict[str, Any]:
    """Return the content of a checkpoint file, of an address or of an open file, whose position stays."""
    if hasattr(source, "read"):
        position = source.tell()
        content = torch.load(source, map_location="cpu", weights_only=weights_only)
        source.seek(position)
    elif "://" in str(source):
        with fsspec.open(str(source), "rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=weights_only)
    else:
        mapped = zipfile.is_zipfile(source)
        content = torch.load(source, map_location="cpu", weights_only=weights_only, mmap=mapped)
        check_written(content, source, "checkpoint_path")
    return dict(content)
