"""Figures, images and texts, shown by each logger that can: TensorBoard, Weights & Biases, MLflow and Comet.

Each function does nothing on ranks other than 0, so collectives must run before the call.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, TensorBoardLogger
from lightning_utilities.core.imports import RequirementCache

from lit_core import screen
from lit_core.files.tables import figure_text

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

_MATPLOTLIB = RequirementCache("matplotlib")
_log = screen.logger(__name__)
_warned: set[str] = set()


@dataclass(frozen=True)
class _Gallery:
    """How a logger shows images, bytes of shape ``(height, width, 3)``, and a text."""

    images: Callable[[Any, str, list[np.ndarray], int], None]
    text: Callable[[Any, str, str, int], None]


def _tensorboard_images(logger: Any, key: str, images: list[np.ndarray], step: int) -> None:
    import numpy as np

    logger.experiment.add_images(key, np.stack(images), step, dataformats="NHWC")


def _tensorboard_text(logger: Any, key: str, text: str, step: int) -> None:
    logger.experiment.add_text(key, verbatim(text), step)


def verbatim(text: str) -> str:
    """Return a text for TensorBoard in which no Markdown is rendered."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _mlflow_images(logger: Any, key: str, images: list[np.ndarray], step: int) -> None:
    for number, image in enumerate(images):
        logger.experiment.log_image(logger.run_id, image, f"{key}/step={step:06d}-{number}.png")


def _mlflow_text(logger: Any, key: str, text: str, step: int) -> None:
    logger.experiment.log_text(logger.run_id, text, f"{key}/step={step:06d}.txt")


def _comet_images(logger: Any, key: str, images: list[np.ndarray], step: int) -> None:
    for image in images:
        logger.experiment.log_image(image, name=key, step=step)


def _comet_text(logger: Any, key: str, text: str, step: int) -> None:
    logger.experiment.log_text(text, step=step, metadata={"key": key})


def _own_images(logger: Any, key: str, images: list[np.ndarray], step: int) -> None:
    logger.log_image(key, images, step=step)


def _own_text(logger: Any, key: str, text: str, step: int) -> None:
    logger.log_text(key, columns=["text"], data=[[text]], step=step)


_GALLERIES: dict[type[Logger], _Gallery] = {
    TensorBoardLogger: _Gallery(_tensorboard_images, _tensorboard_text),
    MLFlowLogger: _Gallery(_mlflow_images, _mlflow_text),
    CometLogger: _Gallery(_comet_images, _comet_text),
}
#: Of loggers that have ``log_image`` and ``log_text`` themselves, as Lightning's WandbLogger defines them.
_OWN = _Gallery(_own_images, _own_text)


def _galleries(trainer: Trainer) -> list[tuple[Logger, _Gallery]]:
    """Return the loggers that show pictures; empty on ranks other than 0."""
    found: list[tuple[Logger, _Gallery]] = []
    for logger in trainer.loggers if trainer.is_global_zero else ():
        known = next((gallery for kind, gallery in _GALLERIES.items() if isinstance(logger, kind)), None)
        own = _OWN if hasattr(logger, "log_image") and hasattr(logger, "log_text") else None
        if gallery := known or own:
            found.append((logger, gallery))
    return found


def shows_pictures(trainer: Trainer) -> bool:
    """Tell whether this rank has a logger that shows pictures."""
    return bool(_galleries(trainer))


def can_draw(trainer: Trainer) -> bool:
    """Tell whether figures can be shown; warn once if only matplotlib is missing."""
    if not shows_pictures(trainer):
        return False
    if not _MATPLOTLIB and "matplotlib" not in _warned:
        _warned.add("matplotlib")
        _log.warning('Figures are left out: matplotlib is missing; pip install "lit-shift[plot]".')
    return bool(_MATPLOTLIB)


def add_figure(trainer: Trainer, key: str, figure: Figure, step: int) -> None:
    """Show a matplotlib figure.

    Args:
        trainer: Its loggers show the figure.
        key: Name of the figure.
        figure: Made without pyplot, so that nothing has to be closed.
        step: Optimizer step it belongs to.
    """
    if shows_pictures(trainer):
        add_images(trainer, key, [pixels(figure)], step)


def pixels(figure: Figure) -> np.ndarray:
    """Return a matplotlib figure drawn, as bytes of shape ``(height, width, 3)``."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def add_images(trainer: Trainer, key: str, images: Sequence[np.ndarray], step: int) -> None:
    """Show images of one size.

    Args:
        trainer: Its loggers show the images.
        key: Name of the images.
        images: Bytes of shape ``(height, width, 3)``.
        step: Optimizer step they belong to.
    """
    for logger, gallery in _galleries(trainer):
        gallery.images(logger, key, list(images), step)


def add_text(trainer: Trainer, key: str, text: str, step: int) -> None:
    """Show text verbatim.

    Args:
        trainer: Its loggers show the text.
        key: Name of the text.
        text: The text.
        step: Optimizer step it belongs to.
    """
    for logger, gallery in _galleries(trainer):
        gallery.text(logger, key, text, step)


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
    axes.set(xlabel=figure_text(xlabel), ylabel=figure_text(ylabel))
    axes.set_title(textwrap.fill(figure_text(title), int(9 * figure.get_figwidth())), fontsize="medium")
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
        axes.plot(x, y, marker=".", label=figure_text(label))
    axes.set(title=figure_text(title), xlabel=figure_text(xlabel), ylabel=figure_text(ylabel))
    if lines:
        axes.legend(frameon=False)
    return figure
