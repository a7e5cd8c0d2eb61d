"""What a run folder holds for a page: metrics, the layout of its charts, pictures, texts and the record."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_core import record
from lit_core.errors import UserError
from lit_core.files.logged import ANSWERS, ANSWERS_OR_NOT, METRICS, logged_values

#: Charts of a run that no layout describes.
_CHARTS = {"training": {"training loss": ["train/loss"], "validation loss": ["val/.*loss"]}}
#: Any characters in a pattern of keys, or any of one level; most of them, and most characters of a key.
_STRETCH, _MOST_STRETCHES, _LONGEST_KEY = re.compile(r"\.\*|\[\^/\]\*"), 2, 300
#: What a picture begins with.
PNG = b"\x89PNG\r\n\x1a\n"
#: Metrics that count in a run that names none.
_LOSSES = "train/loss|val/.*loss"

Layout = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Run:
    """A run.

    Args:
        name: Name of its folder.
        logged: Pairs of logged step and value, by key.
        facts: Its record; empty if it has none.
        layout: Patterns of keys by chart by category, as on TensorBoard's page CUSTOM SCALARS.
        answers: Keys of the metrics that count, which stand first in TensorBoard.
        texts: The last text of each tag.
        pictures: The last picture of each tag, as PNG.
    """

    name: str
    logged: Mapping[str, Sequence[tuple[int, float]]]
    facts: Mapping[str, Any]
    layout: Layout
    answers: Sequence[str]
    texts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def keys(self, patterns: Iterable[str]) -> list[str]:
        """Return the keys of a chart that have a curve, each once."""
        found = [key for pattern in patterns for key in self.logged if _matches(pattern, key)]
        return [key for key in dict.fromkeys(found) if len({step for step, _ in self.logged[key]}) > 1]


def is_run(folder: Path) -> bool:
    """Tell whether a folder is that of a run that has logged something."""
    return (folder / METRICS).is_file()


def read_run(folder: Path) -> Run:
    """Read a run.

    Args:
        folder: Its folder.

    Raises:
        UserError: If a file in it is damaged.
    """
    logged = logged_values(folder)
    try:
        shown = _shown(folder)
    except Exception as error:  # of protocol buffers, whatever is wrong with the file
        raise UserError(f"The events for TensorBoard in {folder} are damaged ({error}); remove them.") from error
    layout, tags, texts, pictures = shown
    losses = [key for key in logged if re.fullmatch(_LOSSES, key)]
    answers = sorted(key for key in logged if f"{ANSWERS}{key}" in tags) or losses
    return Run(folder.resolve().name, logged, facts_of(folder), layout or _CHARTS, answers, texts, pictures)


def facts_of(folder: Path) -> dict[str, Any]:
    """Return what is recorded about a run or a report, as `lit_core.cli.show` tells it; empty where nothing is."""
    path = folder / record.RECORD
    if not path.is_file():
        return {}
    evaluations = [record.read(one)["sessions"][-1] for one in sorted(folder.glob("run.*.json"))]
    return {"path": str(folder), **record.read(path), **({"evaluations": evaluations} if evaluations else {})}


def _shown(folder: Path) -> tuple[Layout, list[str], dict[str, str], dict[str, bytes]]:
    """Return what TensorBoard shows beside the metrics: layout, tags of scalars, texts and pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout as Charts

    events = EventAccumulator(str(folder), size_guidance={"scalars": 1, "images": 1, "tensors": 1}).Reload()
    last = {tag: events.Tensors(tag)[-1].tensor_proto.string_val[0] for tag in events.Tags()["tensors"]}
    plugins = {tag: about.plugin_data for tag, about in events.summary_metadata.items()}
    layout: dict[str, dict[str, list[str]]] = {}
    for tag, content in last.items():
        if plugins[tag].plugin_name == "custom_scalars":
            for category in Charts.FromString(content).category:
                layout[category.title] = {
                    chart.title: [tag.removeprefix(ANSWERS_OR_NOT) for tag in chart.multiline.tag]
                    for chart in category.chart
                }
    texts = {
        tag.removesuffix("/text_summary"): textwrap.dedent(content.decode(errors="replace"))
        for tag, content in last.items()
        if plugins[tag].plugin_name == "text"
    }
    images = {tag: events.Images(tag)[-1].encoded_image_string for tag in events.Tags()["images"]}
    return (
        layout,
        events.Tags()["scalars"],
        texts,
        {tag: image for tag, image in images.items() if image.startswith(PNG)},
    )


def _matches(pattern: str, key: str) -> bool:
    """Tell whether a key belongs to a chart.

    Patterns come from the run, which may be of others: one with more than two stretches of any characters, or with
    other repetitions, could search for ever and is taken as a key.
    """
    rest, stretches = _STRETCH.subn("", pattern)
    if stretches > _MOST_STRETCHES or set(rest) & set("*+{") or len(key) > _LONGEST_KEY:
        return pattern == key
    try:
        return re.match(pattern, key) is not None
    except re.error:  # a tag that is no pattern
        return pattern == key
