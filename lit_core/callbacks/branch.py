"""`BranchFrom`, which starts a new run from the checkpoint of another."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core import record
from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_core.lightning.checkpoint import check_weights, read_checkpoint_file
from lit_core.lightning.checkpoint_module import CheckpointModule
from lit_core.lightning.optimizers import fitting_moments
from lit_core.lightning.sharded_checkpoint import divided_like


class BranchFrom(Callback):
    """Starts training from another run's weights, optimizer moments and data consumption, matched by name.

    Changes training: schedule, counters, loggers and callbacks are new, and the global step starts at 0. A source in
    windows of another length continues after as many tokens; see `ResumeStream.branch`. To restore everything, resume
    with ``ckpt_path`` instead.

    Args:
        path: Checkpoint of the run to branch from.

    Attributes:
        ancestor: Path, hash, step and history of that checkpoint, for the record of the run; None before ``fit``.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.ancestor: dict[str, Any] | None = None
        self._checkpoint: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the checkpoint before anything is built."""
        if stage == "fit":
            self._checkpoint = read_checkpoint_file(self.path, "--branch_from")
            if trainer.is_global_zero:  # reads the whole file for its hash
                self.ancestor = record.ancestor(self.path, self._checkpoint)
            if hasattr(pl_module, "on_load_checkpoint"):
                pl_module.on_load_checkpoint(self._checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the weights, and the moments of optimizers whose parameters the checkpoint names."""
        assert self._checkpoint is not None
        if trainer.ckpt_path is not None:
            raise UserError("--ckpt_path resumes a run and --branch_from starts a new one; give one of the two.")
        state = self._checkpoint["state_dict"]
        if isinstance(pl_module, CheckpointModule):
            state = pl_module.weights_to_start_from(state, f"--branch_from is {self.path}")
        load_weights(pl_module, state, self.path, "--branch_from")
        self._load_moments(trainer, pl_module)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set where mypy does not see it
            if isinstance(callback, ResumeStream):
                state = self._checkpoint.get("callbacks", {}).get(ResumeStream.__qualname__, {})
                callback.branch(state.get("consumed", {}), state)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Free the checkpoint's memory."""
        self._checkpoint = None

    def _load_moments(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._checkpoint is not None
        saved_names = self._checkpoint.get("optimizer_param_names")
        saved_states = self._checkpoint.get("optimizer_states", [])
        if not saved_names or len(saved_states) != len(trainer.optimizers):
            return
        names_by_parameter = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        for optimizer, names, saved in zip(trainer.optimizers, saved_names, saved_states, strict=True):
            by_name = {name: saved["state"][index] for index, name in enumerate(names) if index in saved["state"]}
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            own_names = {parameter: names_by_parameter[id(parameter)] for parameter in parameters}
            found = {parameter: by_name[name] for parameter, name in own_names.items() if name in by_name}
            for parameter, moments in fitting_moments(optimizer, found).items():
                optimizer.state[parameter] = {
                    key: _like(value, parameter) if isinstance(value, torch.Tensor) else value
                    for key, value in moments.items()
                }


def load_weights(module: LightningModule, state: dict[str, Any], path: str, argument: str) -> None:
    """Load all weights of a module by name.

    Args:
        module: The module that receives them.
        state: Tensors by parameter name.
        path: File they come from, for the message.
        argument: Name of the argument that gave the path, for the message.

    Raises:
        UserError: If a name or a shape differs.
    """
    check_weights(module, state, path, argument)
    own = module.state_dict()
    module.load_state_dict({name: divided_like(value, own[name]) for name, value in state.items()})


def _like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Copy a moment to the parameter's devices; AdamW's step count stays a scalar where the optimizer keeps it.

    Moments of a weight in 16 bits are float32.
    """
    if value.shape != parameter.shape:
        return value.clone()
    dtype = torch.promote_types(parameter.dtype, torch.float32) if value.dtype.is_floating_point else value.dtype
    return divided_like(value, parameter.detach()).to(parameter.device, dtype, copy=True)
