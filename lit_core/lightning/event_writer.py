"""A writer of TensorBoard events that creates its file with the first event."""

from __future__ import annotations

from typing import Any

from torch.utils.tensorboard import FileWriter, SummaryWriter


class EventWriter(SummaryWriter):
    """Writes events; what writes none leaves no file behind, as Lightning's `predict` would.

    Args:
        options: Arguments of SummaryWriter.
    """

    def __init__(self, **options: Any) -> None:
        self._is_begun = False
        super().__init__(**options)
        self._is_begun = True

    def _get_file_writer(self) -> FileWriter | None:
        return super()._get_file_writer() if self._is_begun else None
