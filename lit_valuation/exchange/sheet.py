"""Preview of samples before they are sent: a contact sheet of images, or a CSV table."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from lit_core.files.outputs import output_file
from lit_core.files.paths import atomic_write
from lit_core.files.tables import CsvWriter
from lit_core.screen import on_screen
from lit_valuation.data.images import pillow_image
from lit_valuation.samples import Samples

#: Endings of its names.
_IMAGES, _TABLE = ".png", ".csv"
_SIDE, _LINE, _GAP = 96, 12, 6


def check_sheet(output: Path) -> None:
    """Refuse a path at which a preview would replace another file.

    Args:
        output: Path of the file without its suffix.

    Raises:
        UserError: If there is a preview already.
    """
    for ending in (_IMAGES, _TABLE):
        output_file(output.with_name(f"{output.name}{ending}"))


def write_sheet(output: Path, samples: Samples, names: Sequence[str], columns: Sequence[str] | None) -> Path:
    """Write a preview for the party that owns the samples. The file is not meant to be sent.

    Args:
        output: Path of the file without its suffix.
        samples: Samples that would be sent.
        names: The party's own names of the samples.
        columns: Names of a table's columns; None names them x0, x1, …

    Returns:
        Path of the file: a PNG for images, otherwise a CSV.
    """
    labels = [samples.classes[number] for number in samples.y.tolist()]
    if samples.x.ndim == 4 and samples.x.shape[1] in (1, 3):
        path = output.with_name(f"{output.name}{_IMAGES}")
        atomic_write(
            path, _contact_sheet(samples, [f"{label} {name}" for label, name in zip(labels, names, strict=True)])
        )
        return path
    path = output.with_name(f"{output.name}{_TABLE}")
    rows = samples.x.flatten(1)
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.row(["name", "class", *(columns or [f"x{number}" for number in range(rows.shape[1])])])
    for name, label, row in zip(names, labels, rows.tolist(), strict=True):
        writer.row([name, label, *(f"{value:.7g}" for value in row)])
    atomic_write(path, text.getvalue())
    return path


def _contact_sheet(samples: Samples, captions: Sequence[str]) -> bytes:
    image = pillow_image()
    from PIL import ImageDraw

    pixels = samples.x if samples.x.dtype == torch.uint8 else (samples.x.clamp(0, 1) * 255).round().to(torch.uint8)
    across = math.ceil(math.sqrt(len(samples)))
    down = math.ceil(len(samples) / across)
    sheet = image.new("RGB", (across * (_SIDE + _GAP), down * (_SIDE + _LINE + _GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (x, caption) in enumerate(zip(pixels, captions, strict=True)):
        left, top = number % across * (_SIDE + _GAP), number // across * (_SIDE + _LINE + _GAP)
        picture = image.fromarray(x.permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy())
        sheet.paste(picture.resize((_SIDE, _SIDE), image.Resampling.NEAREST), (left, top))
        draw.text((left, top + _SIDE), on_screen(caption)[: _SIDE // 6], fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()
