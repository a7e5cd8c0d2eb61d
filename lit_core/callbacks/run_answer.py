"""`RunAnswer`, which shows the answer of a test beside its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core.files.logged import ANSWERS
from lit_core.lightning.internals import logged_step
from lit_core.lightning.pictures import add_text


class RunAnswer(Callback):
    """Gives the loggers that show texts what a test answers on the screen, as ``answer/test``.

    Args:
        lines: Returns the lines, once all is measured.
    """

    def __init__(self, lines: Callable[[], Sequence[str]]) -> None:
        self.lines = lines

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show them."""
        if trainer.is_global_zero and trainer.loggers and (lines := self.lines()):
            add_text(trainer, f"{ANSWERS}test", "\n".join(lines), logged_step(trainer))
