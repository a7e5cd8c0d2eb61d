"""The verb ``lit-moe drift``: how the choice of experts differs between two fingerprints."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lit_core.errors import UserError, checked_first
from lit_core.files.paths import atomic_write
from lit_core.files.tables import figure_text, text_table
from lit_core.record import output_with_record, write_record
from lit_core.screen import say
from lit_moe.callbacks.layer_drift import LayerDrift
from lit_moe.fingerprint import Fingerprint, shape_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most cells of a picture in which their numbers are readable.
_MOST_NUMBERS = 300


def _check(output: str | None) -> None:
    if output is not None and not output.endswith(".png"):
        raise UserError(f"output is {output}, but the picture is a PNG; give a name that ends in .png.")


@checked_first(_check)
def drift(before: str, after: str, output: str | None = None) -> None:
    """Compare two fingerprints: which share of each token's experts are others, by layer and domain.

    Args:
        before: Fingerprint of the earlier model, as ``lit-moe fingerprint`` writes it.
        after: Fingerprint of the later model on the same tokens.
        output: Picture to be written, a .png; null only prints the table.

    Raises:
        UserError: If a file is missing or damaged, the two cannot be compared, or the output exists.
    """
    target = None if output is None else output_with_record(output)
    _check(output)
    old, new = Fingerprint.load(before, "before"), Fingerprint.load(after, "after")
    _check_comparable(old, new, before, after)
    changed = changed_shares(old, new)
    domains = old.probe.domains
    chance = [1 - top_k / experts for experts, top_k in old.sizes]
    rows: list[Sequence[str]] = [["layer", *domains, "mean", "unrelated"]]
    for index, (shares, other) in enumerate(zip([*changed, changed.mean(0)], [*chance, np.mean(chance)], strict=True)):
        cells = [*shares, shares.mean(), other]
        rows.append([str(index) if index < len(changed) else "mean", *(f"{cell:.3f}" for cell in cells)])
    say("Share of a token's experts that are others than before; of unrelated routers on the right", "")
    say(*text_table(rows))
    if target is not None:
        with io.BytesIO() as buffer:
            figure = _picture(changed, domains, max(chance))
            figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
            write_record(target)  # first, since a command that is given again refuses an output that exists
            atomic_write(target, buffer.getvalue())
        say("", f"Wrote {target}")


def changed_shares(old: Fingerprint, new: Fingerprint) -> np.ndarray:
    """Return which share of a token's experts one of two comparable fingerprints has and the other has not.

    Returns:
        One minus the continual router saturation, shape ``(layers, domains)``.
    """
    probe = old.probe
    shares = np.zeros((len(old.experts), len(probe.domains)))
    for index, (before, after, size) in enumerate(zip(old.experts, new.experts, old.sizes, strict=True)):
        for number in range(len(probe.domains)):
            here = probe.domain == number
            layer = LayerDrift(*size, None, 1, "cpu")
            layer.add(before[here].flatten(0, 1), after[here].flatten(0, 1), None, probe.counted[here].flatten())
            shares[index, number] = 1 - layer.compute()[0]["crs"]
    return shares


def _check_comparable(old: Fingerprint, new: Fingerprint, before: str, after: str) -> None:
    if old.sizes != new.sizes:
        raise UserError(
            f"before is {before}, of {shape_text(old.sizes)}, but after is {after}, of {shape_text(new.sizes)}; "
            "compare models of the same shape."
        )
    for what, one, other in (
        ("tokenizer", old.probe.tokenizer, new.probe.tokenizer),
        ("tokens", old.probe.sha256, new.probe.sha256),
    ):
        if one != other:
            raise UserError(
                f"before is {before} and after is {after}, whose {what} differ ({one[:12]} and {other[:12]}), so their "
                f"experts cannot be compared; write the one by lit-moe fingerprint with --probe and the other."
            )


def _picture(changed: np.ndarray, domains: Sequence[str], unrelated: float) -> Figure:
    from matplotlib.figure import Figure

    layers, count = changed.shape
    figure = Figure(figsize=(min(14.0, 3.5 + 0.8 * count), min(12.0, 2.2 + 0.32 * layers)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(changed, aspect="auto", cmap="viridis", vmin=0, vmax=unrelated)
    for (layer, domain), share in np.ndenumerate(changed if changed.size <= _MOST_NUMBERS else np.zeros((0, 0))):
        ink = "white" if share < 0.6 * unrelated else "black"
        axes.text(domain, layer, f"{share:.2f}", ha="center", va="center", color=ink, fontsize="small")
    names = [figure_text(name if len(name) <= 24 else f"…{name[-23:]}") for name in domains]
    axes.set_xticks(range(count), names, rotation=30, ha="right")
    axes.set_yticks(range(layers), [str(layer) for layer in range(layers)], fontsize="small" if layers < 40 else 5)
    axes.set(xlabel="domain", ylabel="layer")
    axes.set_title("Share of a token's experts that changed", fontsize="medium")
    figure.colorbar(image, ax=axes, label=f"{unrelated:.2f} is that of unrelated routers")
    return figure
