"""Preview of samples before they are sent: a contact sheet of images, or a CSV table."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from lit_core.data.stream import IGNORED
from lit_core.files.outputs import output_file
from lit_core.files.paths import atomic_write
from lit_core.files.tables import CsvWriter
from lit_core.lm.tokenizer import Tokenizer
from lit_core.screen import on_screen, say
from lit_valuation.data.images import pillow_image
from lit_valuation.exchange.probe import MadeProbe, ProbeOptions
from lit_valuation.samples import NAMED, NO_TOKEN, Samples

#: Endings of its names.
_IMAGES, _TABLE = ".png", ".csv"
#: Pixels of the shorter side of a picture at least, of its longer one at most, of a line of text, between pictures.
_SIDE, _LONGEST, _LINE, _GAP = 96, 384, 12, 6
#: Width of a character in pixels, and most characters of a caption's line.
_CHARACTER, _CHARACTERS = 6, 40


def check_sheet(output: Path) -> None:
    """Refuse a path at which a preview would replace another file.

    Args:
        output: Path of the file without its suffix.

    Raises:
        UserError: If there is a preview already.
    """
    for ending in (_IMAGES, _TABLE):
        output_file(output.with_name(f"{output.name}{ending}"))


def disclosure(samples: Samples, model: LightningModule | None) -> list[str]:
    """Return what a query would disclose to the owners, as lines to be printed.

    Args:
        samples: The hard cases that are sent.
        model: The model that is sent; None if there is none.
    """
    of = {"class": "labels", "labels": "labels", "tags": "tags"}.get(samples.target, "targets")
    names, counted = samples.counts(), of != "targets"
    named = ", ".join((f"{name} ({count})" for name, count in names.items()) if counted else names)
    lines = [f"Disclosed to each owner: {len(samples)} hard cases with their {of}: {named}."]
    if samples.has_positions:
        lines.append("They are whole texts, as token ids.")
    if model is not None:
        size = sum(parameter.numel() for parameter in model.parameters())
        of_values = ", with mean and standard deviation of each in your train" if samples.target == "values" else ""
        classes_known: tuple[str, ...] = model.classes  # type: ignore[assignment]
        lines.append(
            f"Also your model: the network {type(getattr(model, 'network', model)).__name__} of {size:,} numbers, and "
            f"the names of all {NAMED[samples.target]} that it knows ({len(classes_known)}){of_values}. Whoever has it "
            "can use it, copy it, and try which samples it was trained on."
        )
    return lines


def probe_disclosure(made: MadeProbe, options: ProbeOptions) -> list[str]:
    """Return what a probe would disclose to the owners, as lines to be printed."""
    probe, n_cases = made.manifest, len(made.cases.queries)
    sums = f"{len(probe.targets)} sums of gradients over {n_cases} hard cases, {probe.fewest} or more in each"
    lines = [
        f"Disclosed to each owner: {sums}, their classes and numbers; and a linear head of the encoder's features for "
        f"{len(probe.classes)} classes, which was fitted to your train. No hard case is sent."
    ]
    if options.deviation:
        lines.append(
            f"Gradients are clipped to {options.clip:g}, and the sums have Gaussian noise of deviation "
            f"{options.deviation:.4g} in each number, for ε = {options.epsilon:g} and δ = {options.delta:g}. The head "
            "has none."
        )
    if made.left_out:
        classes = ", ".join(f"{name} ({count})" for name, count in made.left_out.items())
        lines.append(f"Left out, since a sum needs {probe.fewest} hard cases: {classes}.")
    return lines


def write_probe_sheet(output: Path, made: MadeProbe, deviation: float) -> Path:
    """Write a preview of a probe for the trainer: the sums, their norms without noise, and the noise.

    Args:
        output: Path of the file without its suffix.
        made: The probe.
        deviation: Standard deviation of the noise in each number of a sum.

    Returns:
        Path of the CSV file.
    """
    path = output.with_name(f"{output.name}{_TABLE}")
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.row(["class", "hard cases", "norm of their sum", "noise in each number"])
    for target, norm in zip(made.manifest.targets, made.norms, strict=True):
        writer.row([target.label, str(target.queries), f"{norm:.4g}", f"{deviation:.4g}"])
    atomic_write(path, text.getvalue())
    return path


def write_sheet(
    output: Path, samples: Samples, columns: Sequence[str] | None, tokenizer: Tokenizer | None = None
) -> Path:
    """Write a preview for the party that owns the samples. The file is not meant to be sent.

    Args:
        output: Path of the file without its suffix.
        samples: Samples that would be sent.
        columns: Names of a table's columns; None names them x0, x1, …
        tokenizer: Tokenizer of texts, by which their words are shown; None shows token ids only.

    Returns:
        Path of the file: a PNG for images, otherwise a CSV.
    """
    labels = samples.described()
    if samples.x.ndim == 4 and samples.x.shape[1] in (1, 3, 4):
        path = output.with_name(f"{output.name}{_IMAGES}")
        atomic_write(path, _contact_sheet(samples, list(zip(labels, samples.keys, strict=True))))
        return path
    path = output.with_name(f"{output.name}{_TABLE}")
    if samples.has_positions:
        return _write_texts(path, samples, tokenizer)
    rows = samples.x.flatten(1)
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.row(
        [
            "name",
            "class" if samples.target == "class" else "target",
            *(columns or [f"x{number}" for number in range(rows.shape[1])]),
        ]
    )
    for name, label, row in zip(samples.keys, labels, rows.tolist(), strict=True):
        writer.row([name, label, *(f"{value:.7g}" for value in row)])
    atomic_write(path, text.getvalue())
    return path


def _write_texts(path: Path, samples: Samples, tokenizer: Tokenizer | None) -> Path:
    if tokenizer is None:
        say("Words are not shown: no tokenizer.json lies beside your data; the same `prepare` again writes it.")
    text = io.StringIO()
    writer = CsvWriter(text)
    writer.row(["name", "target", *(["text"] if tokenizer else []), "token ids"])
    for name, target, x, y in zip(samples.keys, samples.described(), samples.x, samples.y, strict=True):
        ids = x[x != NO_TOKEN].tolist()
        words = []
        if tokenizer is not None:
            words = [tokenizer.decode(ids)]
            if samples.target == "tags":
                target = _tagged_words(ids, y.tolist(), samples.classes, tokenizer)
        writer.row([name, target, *words, " ".join(map(str, ids))])
    atomic_write(path, text.getvalue())
    return path


def _tagged_words(ids: Sequence[int], tags: Sequence[int], names: Sequence[str], tokenizer: Tokenizer) -> str:
    """Return a text with each tag in brackets behind the word whose token has it; other words have none."""
    starts = [number for number in range(len(ids)) if tags[number] != IGNORED]
    shown = [tokenizer.decode(ids[: starts[0]]).strip()]
    for start, end in pairwise([*starts, len(ids)]):
        word, *others = tokenizer.decode(ids[start:end]).split(maxsplit=1) or [""]
        shown += [word, f"[{names[tags[start]]}]", *others]
    return " ".join(part.strip() for part in shown if part)


def _contact_sheet(samples: Samples, captions: Sequence[tuple[str, str]]) -> bytes:
    """Return a PNG of all samples as the model sees them, each with its class and its name below.

    A fourth channel is shown beside the colours, which it does not hide: the model sees both.
    """
    image = pillow_image()
    from PIL import ImageDraw, ImageFont

    font: Any = ImageFont.load_default()
    has_all = not isinstance(font, ImageFont.ImageFont)  # that of a Pillow without FreeType has Latin letters only
    pixels = samples.x if samples.x.dtype == torch.uint8 else (samples.x.clamp(0, 1) * 255).round().to(torch.uint8)
    if pixels.shape[1] == 4:
        pixels = torch.cat([pixels[:, :3], pixels[:, 3:].expand(-1, 3, -1, -1)], dim=3)
    width, height = _shown_size(*pixels.shape[:1:-1])
    lines = [[on_screen(line)[:_CHARACTERS] for line in caption] for caption in captions]
    wide = max(width, _CHARACTER * max(len(line) for caption in lines for line in caption)) + _GAP
    high = height + 2 * _LINE + _GAP
    across = math.ceil(math.sqrt(len(samples)))
    down = math.ceil(len(samples) / across)
    sheet = image.new("RGB", (across * wide, down * high), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (x, caption) in enumerate(zip(pixels, lines, strict=True)):
        left, top = number % across * wide, number // across * high
        picture = image.fromarray(x.permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy())
        enlarged = width >= picture.width
        sheet.paste(
            picture.resize((width, height), image.Resampling.NEAREST if enlarged else image.Resampling.BOX), (left, top)
        )
        for line, text in enumerate(caption):
            known = text if has_all else text.encode("latin-1", "replace").decode("latin-1")
            draw.text((left, top + height + line * _LINE), known, fill="black", font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _shown_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height at which images are shown: enlarged by a whole factor, or as they are up to a limit."""
    factor = -(-_SIDE // min(width, height))
    if max(width, height) * factor > _LONGEST:
        factor = max(1, _LONGEST // max(width, height))
    shrink = min(1.0, _LONGEST / (factor * max(width, height)))
    return max(1, round(width * factor * shrink)), max(1, round(height * factor * shrink))
