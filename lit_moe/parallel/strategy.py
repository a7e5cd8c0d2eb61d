"""Training with weights that are divided over devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerStatus
from torch import Tensor
from torch.optim import Optimizer

from lit_core.errors import RunFailure, Stopped, UserError, check_at_least
from lit_core.files.paths import replace_whole
from lit_core.files.temporary import temporary
from lit_core.lightning.checkpoint import check_weights
from lit_core.lightning.float32_steps import for_weights_in
from lit_core.lightning.internals import set_data_parallel_size
from lit_core.lightning.part_writer import PartWriter
from lit_core.lightning.sharded_checkpoint import (
    divided_like,
    load_checkpoint_parts,
    write_gathered,
)
from lit_moe.parallel.sharding import without_reduction


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2: each device holds a part of every weight, gradient and optimizer state, and gathers a layer to use it.

    With ``expert_parallel`` above 1, the experts of each mixture layer are divided over groups of that many devices.
    Tokens are sent to their experts, which are not gathered within the group. Every device has its own data. Training
    equals that of one device which accumulates the same micro-batches. Checkpoints fit any number of devices.

    Another LightningModule than `MoELanguageModel` calls `lit_moe.parallel.shard` in its ``configure_model``, and
    returns the mean over its micro-batch from ``training_step``.

    Args:
        expert_parallel: Devices among which each layer's experts are divided; 1 gathers them like all weights. It must
            divide the number of devices and of experts, and should not span machines.
        checkpoint_folders: Whether a checkpoint is a folder to which each device writes its part while training goes
            on, for large models; otherwise it is a file that every strategy reads, gathered tensor by tensor.
        reduce_once: Whether gradients are summed over the devices once per optimizer step, not in each micro-batch.
            Less is sent, but each device then holds the gradients of the whole model in float32.
    """

    def __init__(self, expert_parallel: int = 1, checkpoint_folders: bool = False, reduce_once: bool = False) -> None:
        check_at_least(1, expert_parallel=expert_parallel)
        super().__init__(tensor_parallel_size=expert_parallel, save_distributed_checkpoint=checkpoint_folders)
        self.expert_parallel, self.checkpoint_folders = expert_parallel, checkpoint_folders
        self.reduce_once = reduce_once
        self._writer: PartWriter | None = None

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int]:
        """Arguments that give every device its own data; the base class gives a group the same data."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    def setup_environment(self) -> None:
        """Check the number of devices and set the size of the data-parallel dimension."""
        devices = self.num_nodes * self.num_processes
        if devices % self.expert_parallel:
            raise UserError(
                f"`expert_parallel` is {self.expert_parallel}, but the number of devices is {devices}, which can't be "
                f"divided into groups of {self.expert_parallel}; set it to a divisor of {devices}."
            )
        set_data_parallel_size(self, devices // self.expert_parallel)
        super().setup_environment()

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        """Divide the loss by the number of devices, so that the sum of their gradients is the mean."""
        return super().backward(closure_loss / self.world_size, optimizer, *args, **kwargs)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Lightning runs all micro-batches of an optimizer step but the last in this context."""
        if not self.reduce_once:
            yield
            return
        assert self.lightning_module is not None
        with without_reduction(self.lightning_module):
            yield

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning calls `load_optimizer_state_dict`: always."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the weights, still divided."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimizer's states, still divided, by the index of their parameter."""
        return (optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer).state_dict()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, a file or a folder; all devices call it.

        Args:
            checkpoint: What to write, with divided tensors.
            filepath: The file or folder.
            storage_options: Not supported.
        """
        path = Path(self.broadcast(str(filepath)))
        if not self.checkpoint_folders:
            if self.broadcast(path.is_dir()):  # a run that began with folders keeps it until the file is there
                with temporary(path) if self.is_global_zero else nullcontext(path) as file:
                    write_gathered(checkpoint, file, self.global_rank)
                    if self.is_global_zero:
                        replace_whole(path, file)
            else:
                write_gathered(checkpoint, path, self.global_rank)
            return
        if self._writer is None:
            self._writer = PartWriter(self.global_rank, self.world_size)
        self._writer.save(checkpoint, path)
        assert self.lightning_module is not None
        if self.lightning_module.trainer.state.status != TrainerStatus.RUNNING:
            self._writer.wait()

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """Remove a checkpoint, once those that replace it are written."""
        if self._writer is None:
            super().remove_checkpoint(filepath)
        else:
            self._writer.after_writing(partial(super().remove_checkpoint, filepath))

    def on_train_end(self) -> None:
        """Wait until all checkpoints are written."""
        if self._writer is not None:
            self._writer.wait()

    def on_exception(self, exception: BaseException) -> None:
        """Wait until all checkpoints are written, of which a run that is stopped by a signal says that they are."""
        try:
            self.on_train_end()
        except RunFailure:
            if isinstance(exception, Stopped):
                raise

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Return the content of a checkpoint, a file or a folder; each device later reads only its parts of tensors.

        Args:
            checkpoint_path: The file or folder.
            weights_only: Ignored; a checkpoint is never unpickled in another way.
        """
        self.on_train_end()
        return load_checkpoint_parts(self.broadcast(str(checkpoint_path)))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load this device's parts of the weights."""
        assert self.lightning_module is not None
        mine, path = self.lightning_module.state_dict(), self.lightning_module.trainer.ckpt_path
        check_weights(self.lightning_module, checkpoint["state_dict"], str(path), "--ckpt_path")
        state = {name: divided_like(value, mine[name]) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this device's parts of the optimizers' states."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            states = {
                number: {
                    name: divided_like(value, parameters[number])
                    if getattr(value, "shape", None) == parameters[number].shape
                    else value
                    for name, value in for_weights_in(parameters[number].dtype, state).items()
                }
                for number, state in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": states})
