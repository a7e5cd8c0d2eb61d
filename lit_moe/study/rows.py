"""The rows of a cell's results: of the whole run, by text, by layer, by step."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from lit_moe.callbacks import Forgetting
from lit_moe.module import MoELanguageModel
from lit_moe.nn import moe_layers
from lit_moe.study.shift import BANDS, around_shift, layers_of
from lit_moe.study.texts import Texts

MeasuredRow = dict[str, Any]
Metrics = Mapping[str, float]
Steps = Sequence[Mapping[str, float]]
#: Keys of a test after the name of its source, by column.
TESTED = {"loss": "loss", "bits_per_byte": "bits_per_byte", "mri": "router/mri/mean"}
#: The same for each layer.
LAYERED = {
    "mri": "router/mri",
    "crs": "router/crs",
    "crs_above_chance": "router/crs_above_chance",
    "cvs": "router/cvs_per_occurrence",
    "cvs_above_chance": "router/cvs_per_occurrence_above_chance",
    "coactivation": "router/coactivation",
}


def losses(before: Metrics, after: Metrics, texts: Texts) -> dict[str, float]:
    """Return the losses on old and new text, and what was forgotten and learnt where there was something before."""
    measured: dict[str, float] = {}
    for key in ("loss", "bits_per_byte"):
        old, new = (_by_text(after, texts, key)[text] for text in ("old", "new"))
        measured |= {f"old_{key}": old, f"new_{key}": new, f"mean_{key}": (old + new) / 2}
        if before:
            began = _by_text(before, texts, key)
            suffix = "" if key == "loss" else f"_{key}"
            measured |= {f"forgetting{suffix}": old - began["old"], f"adaptation{suffix}": began["new"] - new}
    return measured


def shift_facts(before: Steps, after: Steps, window: int, per_expert: float) -> dict[str, float]:
    """Return spike and recovery of the imbalance at the shift, for the routing of inference and of training."""
    shifted: dict[str, float] = {}
    for suffix, of in (("", _inference), ("_training", _mri)) if per_expert else ():
        facts = around_shift(of(before), of(after), window)
        facts |= {
            "return_share": facts["return_steps"] / len(after),
            "return_tokens_per_expert": facts["return_steps"] * per_expert,
        }
        shifted |= {f"mri_{name}{suffix}": value for name, value in facts.items()}
    return shifted


def step_rows(before: Steps, after: Steps, per_expert: float) -> Iterator[MeasuredRow]:
    """Yield means over a few successive steps, which are counted from the shift."""
    size = max(1, len(after) // 50)
    steps, shift = [*before, *after], len(before)
    for first in range(shift % size, len(steps) - size + 1, size):
        some = steps[first : first + size]
        row = {"what": "step", "step": first - shift, "loss": statistics.fmean(step["loss"] for step in some)}
        if per_expert:
            row |= {"mri": statistics.fmean(_inference(some)), "mri_training": statistics.fmean(_mri(some))}
            row["tokens_per_expert"] = round((first - shift) * per_expert)
        yield row


def curve_rows(forgetting: Forgetting) -> Iterator[MeasuredRow]:
    """Yield the losses at each validation, by the tokens that were trained on since the shift."""
    for number, cost in enumerate(forgetting.costs, start=1):
        moment = "before" if number == 1 else "after" if number == len(forgetting.costs) else "during"
        old, new = (
            statistics.fmean(cost["losses"][name] for name in names) for names in (forgetting.old, forgetting.new)
        )
        row = {"what": "curve", "moment": moment, "tokens": int(cost["tokens"]), "old_loss": old, "new_loss": new}
        yield row | {"new_likelihood": -new}  # budgets are compared by what rises


def text_rows(moment: str, metrics: Metrics, texts: Texts) -> Iterator[MeasuredRow]:
    """Yield what a test measured on each text."""
    columns = {name: _by_text(metrics, texts, key) for name, key in TESTED.items()}
    for text in columns["loss"]:
        values = {name: by_text[text] for name, by_text in columns.items() if text in by_text}
        yield {"what": "text", "moment": moment, "text": text} | values


def layer_rows(before: Metrics, after: Metrics, texts: Texts) -> Iterator[MeasuredRow]:
    """Yield what was measured of each layer at the end, and what it lost of its vocabulary specialization."""
    for layer in count():
        keys = {name: f"{key}/layer_{layer:02d}" for name, key in LAYERED.items()}
        columns = {name: _by_text(after, texts, key) for name, key in keys.items()}
        if not columns["mri"]:
            return
        began = _by_text(before, texts, keys["cvs"])
        for text in columns["mri"]:
            values = {name: by_text[text] for name, by_text in columns.items() if text in by_text}
            values |= {"cvs_lost": began[text] - values["cvs"]} if text in began else {}
            yield {"what": "layer", "text": text, "layer": layer} | values


def band_rows(layers: Sequence[MeasuredRow]) -> Iterator[MeasuredRow]:
    """Yield the means over the layers of each band."""
    n_layers = 1 + max((row["layer"] for row in layers), default=-1)
    for text in dict.fromkeys(row["text"] for row in layers):
        for band in BANDS:
            some = [row for row in layers if row["text"] == text and row["layer"] in layers_of(band, n_layers)]
            if some:
                names = [name for name, value in some[0].items() if isinstance(value, float)]
                means = {name: statistics.fmean(row[name] for row in some) for name in names}
                yield {"what": "band", "text": text, "band": band} | means


def _by_text(metrics: Metrics, texts: Texts, key: str) -> dict[str, float]:
    """Return the mean of a metric over the sources of each text; texts without it are left out."""
    by_text: dict[str, list[float]] = {}
    for name in texts.names:
        if f"test/{name}/{key}" in metrics:
            by_text.setdefault(texts.kind(name), []).append(metrics[f"test/{name}/{key}"])
    return {text: statistics.fmean(values) for text, values in by_text.items()}


def _mri(steps: Steps) -> list[float]:
    return [step["mri"] for step in steps]


def _inference(steps: Steps) -> list[float]:
    """Return the imbalance of the inference routing, which is logged apart where training chooses other experts."""
    return [step.get("raw_mri", step["mri"]) for step in steps]


def share_per_expert(module: MoELanguageModel) -> float:
    """Return the share of the tokens that an expert gets at perfect balance; 0 for a dense model."""
    routers = [layer.router for layer in moe_layers(module).values()]
    return routers[0].top_k / routers[0].n_experts if routers else 0.0
