"""`CompileParts`, which compiles the parts of a model that do most of the work, by `torch.compile`."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from lit_core.errors import UserError, did_you_mean


class CompileParts(Callback):
    """Changes training: compiles parts of the model by ``torch.compile``; losses are equal to rounding.

    Parts are compiled in place, so checkpoints have the same keys as without, and each can be loaded and resumed with
    or without this callback. What a compiler cannot trace, such as tokenizers and the choice of experts, runs as
    before. The first steps take longer, up to minutes. Evaluations and predictions of other commands are not compiled.

    Args:
        parts: Names of submodules, as ``network.encoder``; None takes those of the model's ``main_parts``, which the
            models of this project have.
        backend: Compiler of torch, such as inductor or aot_eager.
        dynamic: Whether to compile for any shape from the start; None does so once shapes have changed.

    Raises:
        UserError: If torch has no such backend.
    """

    def __init__(self, parts: list[str] | None = None, backend: str = "inductor", dynamic: bool | None = None) -> None:
        from torch._dynamo import list_backends  # three seconds, that only who compiles waits for

        known = list_backends(exclude_tags=())
        if backend not in known:
            hint = did_you_mean(backend, known) or f" There are {', '.join(known)}."
            raise UserError(f"`backend` is {backend}, which is not one of torch's.{hint}")
        self.parts, self.backend, self.dynamic = parts, backend, dynamic
        self._n_graphs = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compile the parts at their first use.

        Raises:
            UserError: If there is no such part, or the strategy divides the model.
        """
        if stage != "fit":
            return
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise UserError("CompileParts does not compile a model that a strategy divides; leave one of them out.")
        from torch._dynamo import lookup_backend

        compiler = lookup_backend(self.backend)

        def counted(graph: Any, inputs: Any) -> Any:
            self._n_graphs += 1
            return compiler(graph, inputs)

        for part in self._found(pl_module):
            part.compile(backend=counted, dynamic=self.dynamic)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse parts of which torch has compiled nothing.

        Raises:
            UserError: If there is nothing but such parts.
        """
        if not self._n_graphs:
            raise UserError(
                "torch has compiled nothing of the parts that CompileParts names: it compiles no class of torch.nn by "
                "itself, such as nn.Sequential, and no part that is not called as a module; name others by `parts`."
            )

    def _found(self, module: LightningModule) -> list[nn.Module]:
        if self.parts is None:
            found: list[nn.Module] | None = getattr(module, "main_parts", None)
            if found is None:
                raise UserError(
                    f"`parts` is null, but {type(module).__name__} has no `main_parts`; name its submodules."
                )
            return found
        known = dict(module.named_modules())
        for name in self.parts:
            if name not in known:
                hint = did_you_mean(name, known) or f" There are {', '.join(list(known)[1:9])} and others."
                raise UserError(f"`parts` names {name}, which {type(module).__name__} has not.{hint}")
        return [known[name] for name in self.parts]
