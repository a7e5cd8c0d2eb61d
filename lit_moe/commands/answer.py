"""What `test` and `validate` answer on the screen: did it forget, did it learn, do the routers balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lit_core.cli.former_test import former_test, how_to_get, parent_of, where_from
from lit_core.cli.lit_cli import LitCLI
from lit_core.files.tables import text_table
from lit_core.lightning.checkpoint import checkpoint_facts
from lit_moe.callbacks import Forgetting
from lit_moe.nn import moe_layers

#: The most sources that a question shows.
_SHOWN = 2
#: Arguments of the data on which it depends which tokens a test scores, beside the files.
_TEXTS = ("sequence_length", "test_samples", "document_mask")


@dataclass(frozen=True)
class Shift:
    """What a run learnt, and the losses with which a test of it is compared.

    Args:
        old: Sources that it should not forget.
        new: Sources that it learnt.
        before: Losses before the shift, by source; empty if nothing is known.
        after: Losses to compare with these, by source; those of the test itself if it is empty.
        where: A sentence of at most 80 characters per line that says where they come from, or how to get some.
    """

    old: Sequence[str]
    new: Sequence[str]
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    where: Sequence[str] = ()


def answer_lines(stage: str, metrics: Mapping[str, float], shift: Shift, experts: int) -> list[str]:
    """Return at most 15 lines of at most 80 columns; of many sources the worst.

    Args:
        stage: ``val`` or ``test``.
        metrics: Values by key.
        shift: What the run learnt.
        experts: Experts of all layers together; 0 for a dense model.
    """
    losses = {key.split("/")[1]: value for key, value in metrics.items() if _is_of(key, stage, "loss")}
    after = shift.after or losses
    both = bool(shift.before)
    header = [*(["before", "after", "difference"] if both else []), *([] if both and not shift.after else [stage])]
    rows: list[list[str]] = [["nats per token", *header, "bits/byte"]]
    others = [source for source in losses if source not in (*shift.old, *shift.new)]
    for question, names, most in (
        ("Did it forget? Old sources; a higher loss is worse", shift.old, _SHOWN),
        ("Did it learn? New sources; a lower loss is better", shift.new, _SHOWN),
        ("Sources that it was not trained on", others, 1),
    ):
        known = [name for name in names if name in losses]
        rise = {name: after[name] - shift.before[name] for name in known if name in after and name in shift.before}
        worst = sorted(known, key=lambda name: -rise.get(name, losses[name]))
        rows += [[_shown_of(question, known, most)]] if known else []
        for name in worst[:most]:
            compared = [f"{shift.before[name]:.4f}", f"{after[name]:.4f}", f"{rise[name]:+.4f}"] if name in rise else []
            cells = [*(compared or ["-"] * 3 * both), *([] if len(header) == 3 else [f"{losses[name]:.4f}"])]
            bits = metrics.get(f"{stage}/{name}/bits_per_byte")
            rows.append([_name(name), *cells, "-" if bits is None else f"{bits:.4f}"])
    balance = {name: value for name in losses if (value := metrics.get(f"{stage}/{name}/router/mri/mean")) is not None}
    routers: list[list[str]] = []
    if balance:
        floor = metrics[f"{stage}/router/mri_floor"]
        routers = [
            [
                _shown_of(
                    "Do the routers balance? MRI: the fullest expert's share of tokens",
                    list(balance),
                    _SHOWN,
                )
            ],
            ["mean of the layers", "MRI", "floor", "MRI / floor", "dead experts"],
        ]
        for name in sorted(balance, key=lambda name: -balance[name])[:_SHOWN]:
            prefix = f"{stage}/{name}/router/dead_experts/"
            dead = sum(value for key, value in metrics.items() if key.startswith(prefix))
            ratio = balance[name] / floor
            cells = [f"{balance[name]:.4f}", f"{floor:.4f}", f"{ratio:.2f}", f"{dead:.0f} of {experts}"]
            routers.append([_name(name), *cells])
    elif experts:
        routers = [["Do the routers balance? Add lit_moe.RouterBalance to trainer.callbacks to see it."]]
    return [*text_table(rows), *shift.where, *text_table(routers)]


def answer(cli: LitCLI) -> list[str]:
    """Return the lines for a command that has run."""
    stage = "val" if cli.subcommand == "validate" else "test"
    metrics = {key: float(value) for key, value in cli.trainer.callback_metrics.items()}
    layers = moe_layers(cli.model).values()
    lines = answer_lines(stage, metrics, _shift(cli, stage), sum(layer.router.n_experts for layer in layers))
    return lines if any(_is_of(key, stage, "loss") for key in metrics) else []


def _shift(cli: LitCLI, stage: str) -> Shift:
    callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
    forgetting = next((callback for callback in callbacks if isinstance(callback, Forgetting)), None)
    old = list(getattr(cli.datamodule, "replay", {}) if forgetting is None else forgetting.old)
    new = [name for name in getattr(cli.datamodule, "sources", {}) if name not in old]
    ckpt_path = cli.config[cli.subcommand].get("ckpt_path")
    checkpoint = checkpoint_facts(ckpt_path) if ckpt_path else {}
    is_test = stage == "test" and cli.run_folder is not None
    former = former_test(checkpoint, cli.run_folder, _TEXTS) if is_test else {}  # type: ignore[arg-type]
    if former:
        before = {key.split("/")[1]: value for key, value in former.items() if _is_of(key, stage, "loss")}
        old = old or [name for name in before if name not in new]
        return Shift(old, new, before, where=where_from(parent_of(checkpoint)))
    state = checkpoint.get("callbacks", {}).get(Forgetting.__qualname__) or {}
    parent = parent_of(checkpoint)
    if state.get("baseline") and state.get("costs"):
        last = state["costs"][-1]
        before = {key.removesuffix("/loss"): loss for key, loss in state["baseline"].items() if key.endswith("/loss")}
        sentence = f"Before and after: validation texts, at steps 0 and {last['step']} of this run."
        return Shift(old, new, before, last["losses"], [sentence, *(how_to_get(parent) if parent and is_test else [])])
    return Shift(old, new, where=how_to_get(parent if is_test else {}))


def _is_of(key: str, stage: str, metric: str) -> bool:
    return key.startswith(f"{stage}/") and key.endswith(f"/{metric}") and key.count("/") == 2


def _shown_of(question: str, names: Sequence[str], most: int) -> str:
    return question + (f"; worst {most} of {len(names)}" if len(names) > most else "")


def _name(name: str) -> str:
    return f"  {name if len(name) <= 20 else '…' + name[-19:]}"
