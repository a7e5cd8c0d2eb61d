"""TensorBoard pages beyond scalars: images, heat maps, text, grouped charts, the HPARAMS table.

Each function does nothing without a TensorBoard logger, and nothing on ranks other than 0, so collectives must run
before the call.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_utilities.core.imports import RequirementCache

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

_MATPLOTLIB = RequirementCache("matplotlib")
_log = logging.getLogger(__name__)
_warned: set[str] = set()


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """Return the TensorBoard writers of a trainer; empty on ranks other than 0 and without a TensorBoard logger."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def can_draw(trainer: Trainer) -> bool:
    """Tell whether figures can be shown; warn once if only matplotlib is missing."""
    if not writers(trainer):
        return False
    if not _MATPLOTLIB and "matplotlib" not in _warned:
        _warned.add("matplotlib")
        _log.warning('Figures are left out of TensorBoard: matplotlib is missing; pip install "lit-shift[plot]".')
    return bool(_MATPLOTLIB)


def add_figure(trainer: Trainer, key: str, figure: Figure, step: int) -> None:
    """Show a matplotlib figure.

    Args:
        trainer: Its TensorBoard loggers show the figure.
        key: Tag of the figure.
        figure: Made without pyplot, so that nothing has to be closed.
        step: Optimizer step it belongs to.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    shown = writers(trainer)
    if not shown:
        return
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    for writer in shown:
        writer.add_image(key, pixels, step, dataformats="HWC")


def add_text(trainer: Trainer, key: str, text: str, step: int) -> None:
    """Show text verbatim: each line is indented, so that Markdown in it is not rendered.

    Args:
        trainer: Its TensorBoard loggers show the text.
        key: Tag of the text.
        text: The text.
        step: Optimizer step it belongs to.
    """
    quoted = "\n".join(f"    {line}" for line in text.splitlines())
    for writer in writers(trainer):
        writer.add_text(key, quoted, step)


def heat_map(
    rows: Sequence[Sequence[float]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    center: float | None = None,
) -> Figure:
    """Draw a matrix as a heat map.

    Args:
        rows: Values row by row, the first row on top; shorter rows are padded with blank cells.
        title: Title of the figure.
        xlabel: Label of the columns.
        ylabel: Label of the rows.
        center: Value in the middle of the colour scale, which runs from 0 to twice the value; None fits it to the rows.

    Returns:
        The figure.
    """
    import numpy as np
    from matplotlib.figure import Figure

    width = max(len(row) for row in rows)
    values = np.array([[*row, *[np.nan] * (width - len(row))] for row in rows], dtype=float)
    figure = Figure(figsize=(min(12.0, 2.5 + 0.25 * width), min(10.0, 1.6 + 0.3 * len(rows))), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, aspect="auto", cmap="viridis" if center is None else "RdBu_r")
    if center is not None:
        image.set_clim(0.0, 2 * center)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(textwrap.fill(title, int(9 * figure.get_figwidth())), fontsize="medium")
    axes.locator_params(integer=True)
    figure.colorbar(image, ax=axes)
    return figure


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str, xlabel: str, ylabel: str
) -> Figure:
    """Draw lines with a legend.

    Args:
        lines: x and y values of each line by its label.
        title: Title of the figure.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for label, (x, y) in lines.items():
        axes.plot(x, y, marker=".", label=label)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if lines:
        axes.legend(frameon=False)
    return figure


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
