"""Hyperparameters as plain data: what builds a module or a data module again, wherever it was built."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from types import FrameType
from typing import Any

from lightning.pytorch.core.mixins import HyperparametersMixin
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_core.errors import UserError
from lit_core.lightning.internals import CLASS_PATH, as_built_by_cli, given_by_cli
from lit_core.origin import NOT_KEPT, KeepsOrigin, described, import_path, origin, unkept


class KeepsHyperparameters(KeepsOrigin, HyperparametersMixin):
    """Base of modules and data modules whose hyperparameters are plain data, also if they are built in Python.

    So a checkpoint can be read without executing code from it, and says how to build the class again. What LightningCLI
    builds keeps its parsed config. What Python builds keeps the class paths and arguments by which a config would name
    the same objects; where there are none, as for a lambda, it keeps a note of what the argument was.
    """

    def keep_arguments(self, ignore: Sequence[str] = ()) -> None:
        """Keep the arguments of the constructor as hyperparameters; to be called in the constructor.

        Args:
            ignore: Arguments to leave out.
        """
        given = given_by_cli()
        if given is None:
            built = origin(self)
            if built is None:  # the arguments do not fit, which the constructor itself has not noticed
                return
            given = {**built["init_args"], CLASS_PATH: import_path(type(self))}
        with as_built_by_cli(given):
            super().save_hyperparameters(ignore=ignore, logger=False)

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Save arguments of a subclass as Lightning does, but as plain data.

        Args:
            args: Those of Lightning's method.
            ignore: Arguments to leave out.
            frame: The frame of the constructor; None takes that of the caller.
            logger: Whether they are sent to the loggers.
        """
        current = inspect.currentframe()
        caller = frame or (current.f_back if current is not None else None)
        given = given_by_cli()
        with nullcontext() if given is None else as_built_by_cli(given):
            super().save_hyperparameters(*args, ignore=ignore, frame=caller, logger=logger)
        for name, value in self.hparams.items():
            self.hparams[name] = described(value)


class NotKeptOptimizer(Optimizer):
    """Stands for an optimizer that a checkpoint could not keep; to build it is refused.

    Args:
        params: The parameters.
        not_kept: What was given instead of a class with its arguments.
    """

    def __init__(self, params: Any, not_kept: str) -> None:
        raise UserError(_sentence("The checkpoint", "optimizer", not_kept))


class NotKeptScheduler(LRScheduler):
    """Stands for a schedule that a checkpoint could not keep; to build it is refused.

    Args:
        optimizer: The optimizer.
        not_kept: What was given instead of a class with its arguments.
    """

    def __init__(self, optimizer: Optimizer, not_kept: str) -> None:
        raise UserError(_sentence("The checkpoint", "scheduler", not_kept))


#: What stands for the arguments that only training uses.
_IN_TRAINING = {"optimizer": NotKeptOptimizer, "scheduler": NotKeptScheduler}


def usable_hyperparameters(
    parameters: Mapping[str, Any], path: Any, argument: str, given: Collection[str] = ()
) -> dict[str, Any]:
    """Return a module's hyperparameters from a checkpoint, if they are enough to build it.

    An optimizer or a schedule that was not kept is refused only when training asks for it.

    Args:
        parameters: The hyperparameters.
        path: The checkpoint, for the message.
        argument: Name of the argument that gave the path, for the message.
        given: Names of the arguments that the caller gives, as a whole or in part; they need not be in the checkpoint.

    Raises:
        UserError: If an argument that is not given was not kept.
    """
    # what is given may be a part only, such as a field of a dataclass
    usable = {name: value for name, value in parameters.items() if name not in given or not any(unkept(value))}
    for name, value in usable.items():
        for key, what in unkept(value, name):
            if key not in _IN_TRAINING:
                raise UserError(_sentence(f"{argument} is {path}, which", key, what))
            usable[name] = {"class_path": import_path(_IN_TRAINING[key]), "init_args": {NOT_KEPT: what}}
    return usable


def _sentence(holder: str, key: str, what: str) -> str:
    name = key.partition(".")[0]
    return (
        f"{holder} does not say how to build `{key}`, which was {what}; name it by class_path in a config (`model."
        f"init_args.{key}`), or load the checkpoint in Python with load_from_checkpoint(path, {name}=...)."
    )
