"""TensorBoard pages that other loggers do not have: grouped charts, the HPARAMS table.

Each function does nothing without a TensorBoard logger, and nothing on ranks other than 0, so collectives must run
before the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_core.files.logged import ANSWERS_OR_NOT
from lit_core.named_parts import named_parts

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """Return the TensorBoard writers of a trainer; empty on ranks other than 0 and without a TensorBoard logger."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def answers_of(trainer: Trainer) -> list[str]:
    """Return the patterns of the keys that answer what a run is made for, as module and callbacks name them.

    Args:
        trainer: The trainer of the run.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [pattern for part in (trainer.lightning_module, *callbacks) for pattern in getattr(part, "answers", ())]


def add_layout(trainer: Trainer, layout: Mapping[str, Mapping[str, Iterable[str]]], first: bool = False) -> None:
    """Group scalars into charts on the CUSTOM SCALARS page.

    TensorBoard has one layout per run folder, so each call merges its charts into the layout and writes it again.

    Args:
        trainer: Its TensorBoard loggers get the layout.
        layout: Patterns of keys by chart by category; several keys share one chart.
        first: Whether its categories stand before those of other calls.
    """
    for logger in trainer.loggers:
        if not isinstance(logger, TensorBoardLogger) or not trainer.is_global_zero:
            continue
        merged: dict[str, dict[str, list[Any]]] = getattr(logger, "_litshift_layout", {})
        for category, charts in layout.items():
            patterns = {chart: [f"{ANSWERS_OR_NOT}{key}" for key in keys] for chart, keys in charts.items()}
            merged.setdefault(category, {}).update({chart: ["Multiline", tags] for chart, tags in patterns.items()})
        if first:
            merged = {**{category: merged[category] for category in layout}, **merged}
        logger._litshift_layout = merged  # type: ignore[attr-defined]
        logger.experiment.add_custom_scalars(merged)


def add_hparams(trainer: Trainer, params: Mapping[str, Any]) -> None:
    """Fill the HPARAMS page: call it once, when training starts.

    No experiment is described, of which TensorBoard would show that of one run for all. So it takes the
    hyperparameters and metrics of all runs, first the hyperparameters in which they differ.

    Args:
        trainer: Its TensorBoard loggers show the page.
        params: Hyperparameters by name; may be nested.
    """
    from torch.utils.tensorboard.summary import hparams

    plain = flatten(named_parts(params))
    for writer in writers(trainer):
        _, *session = hparams(plain, {})
        for summary in session:
            writer._get_file_writer().add_summary(summary)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Flatten nested values to values that the HPARAMS page can show.

    Args:
        params: Values by name; nested mappings are flattened, other objects become text. None, and names with a leading
            underscore, are left out; a class of a config is its short name, with its arguments below.
        prefix: Prefix of each name.

    Returns:
        Plain values by path, such as ``{"decoder/n_layers": 4}``.
    """
    flat: dict[str, bool | int | float | str] = {}
    for key, value in params.items():
        name = str(key)  # a number in some configs, as of transformers' labels
        path = f"{prefix}/{name}" if prefix else name
        if name.startswith("_") or value is None:  # Lightning's internal keys
            continue
        if name == "class_path" and prefix:
            flat[prefix] = str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            flat |= flatten(value, prefix if name == "init_args" else path)
        else:
            flat[path] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
