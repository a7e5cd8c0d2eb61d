"""TensorBoard pages that other loggers do not have: grouped charts, the HPARAMS table.

Each function does nothing without a TensorBoard logger, and nothing on ranks other than 0, so collectives must run
before the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """Return the TensorBoard writers of a trainer; empty on ranks other than 0 and without a TensorBoard logger."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def add_layout(trainer: Trainer, layout: Mapping[str, Mapping[str, Iterable[str]]]) -> None:
    """Group scalars into charts on the CUSTOM SCALARS page.

    TensorBoard has one layout per run folder, so each call merges its charts into the layout and writes it again.

    Args:
        trainer: Its TensorBoard loggers get the layout.
        layout: Patterns of tags by chart by category; several tags share one chart.
    """
    for logger in trainer.loggers:
        if not isinstance(logger, TensorBoardLogger) or not trainer.is_global_zero:
            continue
        merged: dict[str, dict[str, list[Any]]] = getattr(logger, "_litshift_layout", {})
        for category, charts in layout.items():
            merged.setdefault(category, {}).update({chart: ["Multiline", list(tags)] for chart, tags in charts.items()})
        logger._litshift_layout = merged  # type: ignore[attr-defined]
        logger.experiment.add_custom_scalars(merged)


def add_hparams(trainer: Trainer, params: Mapping[str, Any], metrics: Iterable[str]) -> None:
    """Fill the HPARAMS page: call it once, when training starts.

    The page takes the newest value of each metric, so only their names are given here. Lightning's `log_hyperparams`
    would write a placeholder of each metric into its chart.

    Args:
        trainer: Its TensorBoard loggers show the page.
        params: Hyperparameters by name; may be nested.
        metrics: Keys of metrics that will be logged.
    """
    from torch.utils.tensorboard.summary import hparams

    plain = flatten(params)
    for writer in writers(trainer):
        for summary in hparams(plain, dict.fromkeys(metrics, 0.0)):
            writer._get_file_writer().add_summary(summary)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Flatten nested values to values that the HPARAMS page can show.

    Args:
        params: Values by name; nested mappings are flattened, other objects become text. Names with a leading
            underscore are left out.
        prefix: Prefix of each name.

    Returns:
        Plain values by path, such as ``{"decoder/n_layers": 4}``.
    """
    flat: dict[str, bool | int | float | str] = {}
    for name, value in params.items():
        if name.startswith("_"):  # Lightning's internal keys
            continue
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
